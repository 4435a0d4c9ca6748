"""What a language model is, and what any of them can do: be traced along strings, sampled from, measured.

Notation: S tokens 0..S-1, V = S + 1 symbols, of which S is the end of a string and, in inputs, also its
begin. A model is in some state after each prefix; ``n`` states are kept together and go on together.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

TOLERANCE = 1e-2
"""By which probabilities may miss the sum 1; models in bfloat16 do."""


@runtime_checkable
class LanguageModel(Protocol):
    """A distribution of strings that is read token by token.

    A state of n prefixes is a tensor [n, ...], a tuple of states, or an object with ``select(index)`` that
    returns the state of the prefixes ``index`` [m]. ``step`` leaves the state that it is given as it was, so
    that one state can be continued in several ways. A model may have ``trace(input)``, which returns the
    same as the function `trace` here, but faster than step by step.
    """

    @property
    def vocab_size(self) -> int:
        """Number V of symbols: the tokens 0..V-2 and the end V-1."""

    def initial_state(self, n: int) -> Any:
        """Return the state of n empty prefixes."""

    def step(self, state: Any, token: Int64[Tensor, " n"]) -> Any:
        """Return the state after one more token of each prefix, each in 0..V-2."""

    def next_log_probs(self, state: Any) -> Float[Tensor, "n V"]:
        """Return the log-probabilities of the next symbol in nats; -inf for what cannot follow."""

    def hidden(self, state: Any) -> Float[Tensor, "n H"]:
        """Return a vector for each prefix, from which all that follows is predicted."""


class Trace(NamedTuple):
    """What a model is and says after each prefix.

    Attributes:
        hidden: hidden vectors [..., H].
        log_probs: log-probabilities of the next symbol in nats [..., V].
    """

    hidden: Tensor
    log_probs: Tensor


def trace(model: LanguageModel, input: Int64[Tensor, "b T"]) -> Trace:
    """Return hidden vectors [b, T, H] and next-symbol log-probabilities [b, T, V] after each prefix.

    The model is in eval mode meanwhile, and there is no gradient.

    Args:
        model: a language model; its own ``trace`` is used if it has one.
        input: begin marker, then tokens; what follows a padded position means nothing.

    Raises:
        ConfigError: the input is no int64 matrix with at least one column.
    """
    if input.dtype != torch.int64 or input.ndim != 2 or input.shape[1] == 0:
        raise ConfigError(f"input must be int64 [b, T >= 1], got {input.dtype} {list(input.shape)}")
    with inference(model):
        own = getattr(model, "trace", None)
        found = own(input) if own is not None else stepwise_trace(model, input)
    _check_distributions(model, found.log_probs.double().exp().sum(-1))
    return found


def stepwise_trace(model: LanguageModel, input: Int64[Tensor, "b T"]) -> Trace:
    """Return what `trace` does, by one step after the other."""
    tokens = input.masked_fill(input == model.vocab_size - 1, 0)  # padding: any token will do
    states = [model.initial_state(len(input))]
    for t in range(1, input.shape[1]):
        states.append(model.step(states[-1], tokens[:, t]))
    hidden = torch.stack([model.hidden(state) for state in states], 1)
    return Trace(hidden, torch.stack([model.next_log_probs(state) for state in states], 1))


def trace_token_sequences(model: LanguageModel, strings: TokenSequences, *, batch_size: int = 256) -> Trace:
    """Return hidden vectors [N, H] and next-symbol log-probabilities [N, V] at all points of the strings.

    Args:
        model: a language model.
        strings: n >= 1 strings; their N = total + n points are numbered through, string after string.
        batch_size: strings that are read together.

    Returns:
        Both on the CPU, in the model's own precision.

    Raises:
        DataError: a token is not one of the model's.
    """
    hidden = log_probs = torch.empty(0)
    for _, chosen, places, target in _batches(model, strings, batch_size):
        input, _ = chosen.inputs_and_targets(model.vocab_size)
        traced = trace(model, input.to(device_of(model)))
        valid = (target != IGNORE).to(traced.hidden.device)
        if hidden.numel() == 0:
            hidden = traced.hidden.new_empty(strings.n_prefixes, traced.hidden.shape[-1], device="cpu")
            log_probs = traced.log_probs.new_empty(strings.n_prefixes, model.vocab_size, device="cpu")
        hidden[places] = traced.hidden[valid].cpu()
        log_probs[places] = traced.log_probs[valid].cpu()
    return Trace(hidden, log_probs)


def sequence_log_probs(model: LanguageModel, strings: TokenSequences, *, batch_size: int = 256) -> Float64[Tensor, " n"]:
    """Return the log-probability of each string in nats, its end included; -inf for impossible strings.

    Args:
        model: a language model.
        strings: n strings.
        batch_size: strings that are read together.

    Raises:
        DataError: a token is not one of the model's.
    """
    total = torch.zeros(len(strings), dtype=torch.float64)
    for numbers, chosen, _, target in _batches(model, strings, batch_size):
        input, _ = chosen.inputs_and_targets(model.vocab_size)
        log_probs = trace(model, input.to(device_of(model))).log_probs.cpu()
        padded = target == IGNORE
        own = log_probs.gather(-1, target.masked_fill(padded, 0)[..., None]).squeeze(-1).double()
        total[numbers] = own.masked_fill(padded, 0.0).sum(1)
    return total


def sample(model: LanguageModel, n: int, *, max_length: int, seed: int, batch_size: int = 4096) -> TokenSequences:
    """Return n strings drawn from the model, token by token until the end.

    Args:
        model: a language model.
        n: number of strings, >= 0.
        max_length: tokens after which a string is cut, >= 1. A cut string cannot be told from one that ends
            there; choose a length that few strings reach.
        seed: of the draws; same seed, same batch size: same strings.
        batch_size: strings that are drawn together; those that have ended leave the batch at once.

    Returns:
        The strings, on the CPU.

    Raises:
        ConfigError: an argument is out of its range, or the model gives no distribution of the next symbol.
    """
    validation.integer("n", n, least=0)
    validation.integer("max_length", max_length)
    validation.integer("batch_size", batch_size)
    generator = torch.Generator(device_of(model)).manual_seed(validation.integer("seed", seed, least=0))
    sizes = [min(batch_size, n - done) for done in range(0, n, batch_size)]
    with inference(model):
        parts = [_sample_together(model, size, max_length, generator) for size in sizes]
    return TokenSequences.cat([TokenSequences.of([]), *parts])


def select(state: Any, index: Int64[Tensor, " m"]) -> Any:
    """Return the state of the prefixes ``index`` out of the state of several.

    Example:
        >>> select((torch.tensor([[1], [2], [3]]), torch.tensor([4, 5, 6])), torch.tensor([2, 0]))
        (tensor([[3],
                [1]]), tensor([6, 4]))
    """
    if isinstance(state, Tensor):
        return state.index_select(0, index)
    if isinstance(state, tuple):
        return tuple(select(part, index) for part in state)
    return state.select(index)


def device_of(model: Any) -> torch.device:
    """Return where a model's weights or buffers are; the CPU for what has none."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def _batches(
    model: LanguageModel, strings: TokenSequences, batch_size: int
) -> Iterator[tuple[Tensor, TokenSequences, Tensor, Tensor]]:
    """Yield numbers of strings of about one length, the strings, their flat points and their targets."""
    strings.check(model.vocab_size)
    validation.integer("batch_size", batch_size)
    roots = strings.first_prefixes()
    for numbers in strings.lengths.argsort(descending=True, stable=True).split(batch_size):
        chosen = strings.select(numbers)
        _, target = chosen.inputs_and_targets(model.vocab_size)
        places = roots[numbers, None] + torch.arange(target.shape[1])
        yield numbers, chosen, places[target != IGNORE], target


def _sample_together(model: LanguageModel, n: int, max_length: int, generator: torch.Generator) -> TokenSequences:
    """Draw n strings; those that have ended leave the state at once."""
    state, going = model.initial_state(n), torch.arange(n, device=generator.device)
    owners, tokens = [going[:0]], [going[:0]]
    for _ in range(max_length):
        token = _draw(model, state, generator)
        rest = (token != model.vocab_size - 1).nonzero()[:, 0]
        if len(rest) < len(token):
            going, token, state = going[rest], token[rest], select(state, rest)
        if len(rest) == 0:
            break
        owners.append(going)
        tokens.append(token)
        state = model.step(state, token)
    owner = torch.cat(owners)
    in_order = torch.cat(tokens)[owner.argsort(stable=True)]
    return TokenSequences(in_order.cpu(), owner.bincount(minlength=n).cpu())


def _check_distributions(model: Any, total: Tensor) -> None:
    """Refuse probabilities that do not add up to 1; those after an impossible prefix may all be 0."""
    wrong = ~((total - 1).abs() <= TOLERANCE) & (total != 0)
    if wrong.any():
        raise ConfigError(
            f"{type(model).__name__} gives no distribution of the next symbol: the exponentials of next_log_probs "
            f"must add up to 1, got {float(total[wrong][0]):g}"
        )


def _draw(model: LanguageModel, state: Any, generator: torch.Generator) -> Tensor:
    """Draw the next symbol of each prefix [n], by the inverse of its cumulative distribution.

    A uniform number is at most 1 - 2^-53, and so its product with the total is less than the total also when
    rounded: a symbol is always found, and never one of probability zero.
    """
    cumulative = model.next_log_probs(state).double().exp().cumsum(1)
    total = cumulative[:, -1:]
    if not (total > 0).all():
        raise ConfigError(f"{type(model).__name__} gives no distribution of the next symbol after what it wrote itself")
    _check_distributions(model, total)
    uniform = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=generator)
    return torch.searchsorted(cumulative, uniform * total, right=True).squeeze(1)
