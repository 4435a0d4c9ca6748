"""Strings of a language model as functions of uniform noise, and rewards of their prefixes by rollouts.

Notation: n strings of L symbols, k rollouts; the end symbol S = V - 1 is repeated up to position L once it is drawn.
Strings of all lengths then have one shape, and no length has to be read from an accelerator.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.text.language_model import LanguageModel, quantile, select

Reward = Callable[[Tensor], Tensor]
"""Returns rewards ``[n]`` of strings ``[n, L]``."""


def draw_strings(model: LanguageModel, uniform: Float[Tensor, "n L"]) -> Int64[Tensor, "n L"]:
    """Return strings that a model generates, each symbol the quantile of one uniform number.

    The model is in eval mode, and no gradients are recorded.

    Args:
        model: A language model.
        uniform: Numbers in [0, 1). A string is a function of its own row, so that the strings of a batch do not depend
            on how it is divided.

    Returns:
        Strings that end in the end symbol, repeated; one that is longer than L tokens is cut.
    """
    n = len(uniform)
    with inference(model):
        return _continued(
            model, model.initial_state(n), torch.zeros(n, dtype=torch.bool, device=uniform.device), uniform
        )


def prefix_rewards(
    model: LanguageModel, strings: Int64[Tensor, "n L"], uniform: Float[Tensor, "n k L"], reward: Reward
) -> Float[Tensor, "n L"]:
    """Return an estimate of the expected reward after each symbol of strings.

    A prefix is completed k times by the model, and its reward is the mean reward of these strings; the reward of a
    whole string is its own (Yu et al. 2017, SeqGAN, equation 4). Column t holds the rewards after t + 1 symbols.

    Args:
        model: The language model that completes the prefixes, in eval mode and without gradients.
        strings: Strings as :func:`draw_strings` returns them.
        uniform: Noise of the rollouts, independent of that of the strings. All prefixes of a string use the same
            numbers; each of them alone has an unbiased estimate.
        reward: The reward of whole strings.
    """
    n, k, length = uniform.shape
    rows = torch.arange(n, device=strings.device).repeat_interleave(k)
    ended = has_ended(model, strings)
    rewards = []
    with inference(model):
        state = model.initial_state(n)
        for t in range(1, length):
            state = model.step(state, _token(model, strings[:, t - 1]))
            completions = _continued(model, select(state, rows), ended[rows, t], uniform[:, :, t:].flatten(0, 1))
            completed = torch.cat([strings[rows, :t], completions], 1)
            rewards.append(reward(completed).unflatten(0, (n, k)).mean(1))
        return torch.stack([*rewards, reward(strings)], 1)


def has_ended(model: LanguageModel, strings: Int64[Tensor, "n L"]) -> Bool[Tensor, "n L"]:
    """Return at which positions a string is over: those after its first end symbol."""
    is_end = strings == model.vocab_size - 1
    return torch.cat([torch.zeros_like(is_end[:, :1]), is_end[:, :-1]], 1)


def _continued(model: LanguageModel, state: Any, ended: Tensor, uniform: Tensor) -> Tensor:
    """Return one symbol for each column of ``uniform`` after the prefixes of a state; what has ``ended`` stays so."""
    end, symbols = model.vocab_size - 1, list[Tensor]()
    for column in uniform.unbind(1):
        if symbols:
            state = model.step(state, _token(model, symbols[-1]))
        drawn = quantile(model.next_log_probs(state).double().exp_().cumsum(1), column[:, None])
        symbols.append(drawn.masked_fill(ended, end))
        ended = symbols[-1] == end
    return torch.stack(symbols, 1)


def _token(model: LanguageModel, symbol: Tensor) -> Tensor:
    """Return symbols with the end replaced by a token: ``step`` takes tokens only, and what follows has no effect."""
    return symbol.masked_fill(symbol == model.vocab_size - 1, 0)
