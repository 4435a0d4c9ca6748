"""The protocol of language models, with functions that trace, sample and evaluate any of them.

Notation: S tokens ``0..S-1`` and V = S + 1 symbols, of which S is the end of a sequence and, in inputs, also its begin
marker. A model is in some state after each prefix of a sequence; the states of n prefixes are kept in one object and
advance together.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.abilities import TracesInParallel
from kdzoo.core.batch import IGNORE
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

# How far the sum of a distribution may be from 1. bfloat16 has 8 significant bits, so a probability may be off by
# 2^-8 = 0.4 %; an unnormalised output misses 1 by far more.
TOLERANCE = 1e-2


@runtime_checkable
class LanguageModel(Protocol):
    """A distribution over token sequences that is read token by token.

    A state of n prefixes is a tensor ``[n, ...]``, a tuple of states, or an object with a method ``select(index)`` that
    returns the state of the prefixes ``index`` ``[m]``. ``step`` does not change the state that it is given, so that a
    state can be continued in several ways. A model that can read all positions of an input at once also has a method
    ``trace`` (:class:`kdzoo.core.abilities.TracesInParallel`).
    """

    @property
    def vocab_size(self) -> int:
        """Number V of symbols: the tokens 0..V-2 and the end V-1."""

    def initial_state(self, n: int) -> Any:
        """Return the state of n empty prefixes."""

    def step(self, state: Any, token: Int64[Tensor, " n"]) -> Any:
        """Return the state after one more token of each prefix, each in 0..V-2."""

    def next_log_probs(self, state: Any) -> Float[Tensor, "n V"]:
        """Return the log-probabilities of the next symbol in nats; -inf for a symbol that cannot follow."""

    def hidden(self, state: Any) -> Float[Tensor, "n H"]:
        """Return the vector of each prefix that determines all predictions after it."""


class Trace(NamedTuple):
    """Hidden vectors and predictions of a language model after each prefix.

    Attributes:
        hidden: Hidden vectors ``[..., H]``.
        log_probs: Log-probabilities of the next symbol in nats ``[..., V]``.
    """

    hidden: Tensor
    log_probs: Tensor


def trace(model: LanguageModel, input: Int64[Tensor, "b T"]) -> Trace:
    """Return the hidden vectors ``[b, T, H]`` and next-symbol log-probabilities ``[b, T, V]`` after each prefix.

    The model is evaluated in eval mode and without gradients; its mode is restored afterwards.

    Args:
        model: A language model.
        input: The begin marker, then tokens. Values at and after padded positions are meaningless.

    Raises:
        ConfigError: The input is not an int64 matrix with at least one column, or probabilities do not sum to 1.
    """
    if input.dtype != torch.int64 or input.ndim != 2 or input.shape[1] == 0:
        raise ConfigError(f"input must be int64 [b, T >= 1], got {input.dtype} {list(input.shape)}")
    with inference(model):
        result = model.trace(input) if isinstance(model, TracesInParallel) else stepwise_trace(model, input)
    _check_distributions(model, result.log_probs.double().exp().sum(-1))
    return result


def stepwise_trace(model: LanguageModel, input: Int64[Tensor, "b T"]) -> Trace:
    """Return the same as :func:`trace`, computed one step after the other."""
    # The padding symbol is not a token that ``step`` accepts; what follows it is meaningless, so any token will do.
    tokens = input.masked_fill(input == model.vocab_size - 1, 0)
    states = [model.initial_state(len(input))]
    for t in range(1, input.shape[1]):
        states.append(model.step(states[-1], tokens[:, t]))
    hidden = torch.stack([model.hidden(state) for state in states], 1)
    return Trace(hidden, torch.stack([model.next_log_probs(state) for state in states], 1))


def trace_token_sequences(model: LanguageModel, sequences: TokenSequences, *, batch_size: int = 256) -> Trace:
    """Return the hidden vectors ``[N, H]`` and next-symbol log-probabilities ``[N, V]`` of all prefixes of a set.

    Args:
        model: A language model.
        sequences: n >= 1 sequences; their N = total + n prefixes are numbered sequence by sequence.
        batch_size: Sequences that are evaluated together.

    Returns:
        Both on the CPU, in the model's own precision.

    Raises:
        DataError: A token is not one of the model's.
    """
    hidden = log_probs = torch.empty(0)
    for _, batch, prefixes, target in _batches(model, sequences, batch_size):
        input, _ = batch.inputs_and_targets(model.vocab_size)
        traced = trace(model, input.to(device_of(model)))
        valid = (target != IGNORE).to(traced.hidden.device)
        if hidden.numel() == 0:  # the width H and the precision are known only now
            hidden = traced.hidden.new_empty(sequences.n_prefixes, traced.hidden.shape[-1], device="cpu")
            log_probs = traced.log_probs.new_empty(sequences.n_prefixes, model.vocab_size, device="cpu")
        hidden[prefixes] = traced.hidden[valid].cpu()
        log_probs[prefixes] = traced.log_probs[valid].cpu()
    return Trace(hidden, log_probs)


def sequence_log_probs(
    model: LanguageModel, sequences: TokenSequences, *, batch_size: int = 256
) -> Float64[Tensor, " n"]:
    """Return the log-probability of each sequence in nats, its end included; -inf for an impossible sequence.

    Args:
        model: A language model.
        sequences: n sequences.
        batch_size: Sequences that are evaluated together.

    Raises:
        DataError: A token is not one of the model's.
    """
    total = torch.zeros(len(sequences), dtype=torch.float64)
    for rows, batch, _, target in _batches(model, sequences, batch_size):
        input, _ = batch.inputs_and_targets(model.vocab_size)
        log_probs = trace(model, input.to(device_of(model))).log_probs.cpu()
        is_padding = target == IGNORE
        symbol_log_probs = log_probs.gather(-1, target.masked_fill(is_padding, 0)[..., None]).squeeze(-1).double()
        # Filled, not multiplied by 0: a log-probability of -inf at a padded position would make the sum NaN.
        total[rows] = symbol_log_probs.masked_fill(is_padding, 0.0).sum(1)
    return total


def sample(model: LanguageModel, n: int, *, max_length: int, seed: int, batch_size: int = 4096) -> TokenSequences:
    """Return n sequences drawn from the model, token by token until the end symbol.

    Args:
        model: A language model.
        n: Number of sequences, >= 0.
        max_length: Number of tokens after which a sequence is cut, >= 1. A cut sequence cannot be told from one that
            ends there; choose a length that few sequences reach.
        seed: Seed of the draws. The same seed and batch size give the same sequences.
        batch_size: Sequences that are drawn together; those that have ended leave the batch at once.

    Returns:
        The sequences, on the CPU.

    Raises:
        ConfigError: An argument is out of its range, or the model does not give a distribution of the next symbol.
    """
    validation.integer("n", n, least=0)
    validation.integer("max_length", max_length)
    validation.integer("batch_size", batch_size)
    generator = torch.Generator(device_of(model)).manual_seed(validation.integer("seed", seed, least=0))
    sizes = [min(batch_size, n - done) for done in range(0, n, batch_size)]
    with inference(model):
        batches = [_sample_batch(model, size, max_length, generator) for size in sizes]
    return TokenSequences.cat([TokenSequences.of([]), *batches])  # the empty set in case n = 0


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


def quantile(cumulative: Float64[Tensor, "n V"], uniform: Float[Tensor, "n 1"]) -> Int64[Tensor, " n"]:
    """Return the symbols at which cumulative probabilities exceed uniform numbers in [0, 1), scaled by their total."""
    # A uniform number is at most 1 - 2^-53, so its product with the total is less than the total even when rounded:
    # a symbol is always found. With right=True it is never one of probability zero.
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)


def device_of(model: Any) -> torch.device:
    """Return the device of a model's weights or buffers; the CPU for a model without any."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def _batches(
    model: LanguageModel, sequences: TokenSequences, batch_size: int
) -> Iterator[tuple[Tensor, TokenSequences, Tensor, Tensor]]:
    """Yield indices of sequences, these sequences, the numbers of their prefixes, and their targets."""
    sequences.check(model.vocab_size)
    validation.integer("batch_size", batch_size)
    first_prefixes = sequences.first_prefixes()
    # Sorted by length, a batch needs little padding.
    for rows in sequences.lengths.argsort(descending=True, stable=True).split(batch_size):
        batch = sequences.select(rows)
        _, target = batch.inputs_and_targets(model.vocab_size)
        prefixes = first_prefixes[rows, None] + torch.arange(target.shape[1])
        yield rows, batch, prefixes[target != IGNORE], target


def _sample_batch(model: LanguageModel, n: int, max_length: int, generator: torch.Generator) -> TokenSequences:
    """Draw n sequences; those that have ended leave the state at once."""
    state, active = model.initial_state(n), torch.arange(n, device=generator.device)
    # For each step, which sequences got a token and which token; each list starts with an empty tensor so that
    # torch.cat works even if every sequence is empty.
    owners, tokens = [active[:0]], [active[:0]]
    for _ in range(max_length):
        token = _draw(model, state, generator)
        continuing = (token != model.vocab_size - 1).nonzero()[:, 0]
        if len(continuing) < len(token):
            active, token, state = active[continuing], token[continuing], select(state, continuing)
        if len(continuing) == 0:
            break
        owners.append(active)
        tokens.append(token)
        state = model.step(state, token)
    owner = torch.cat(owners)
    # Tokens are in the order of the steps; a stable sort brings those of one sequence together without reordering them.
    by_sequence = torch.cat(tokens)[owner.argsort(stable=True)]
    return TokenSequences(by_sequence.cpu(), owner.bincount(minlength=n).cpu())


def _check_distributions(model: Any, total: Tensor) -> None:
    """Reject probabilities that do not sum to 1; after an impossible prefix they may all be 0."""
    invalid = ~((total - 1).abs() <= TOLERANCE) & (total != 0)  # negated, so that NaN is invalid as well
    if invalid.any():
        raise ConfigError(
            f"{type(model).__name__} does not give a distribution of the next symbol: the exponentials of "
            f"next_log_probs must add up to 1, got {float(total[invalid][0]):g}"
        )


def _draw(model: LanguageModel, state: Any, generator: torch.Generator) -> Tensor:
    """Draw the next symbol of each prefix ``[n]`` by inverting its cumulative distribution."""
    cumulative = model.next_log_probs(state).double().exp().cumsum(1)
    total = cumulative[:, -1:]
    if not (total > 0).all():
        raise ConfigError(
            f"{type(model).__name__} does not give a distribution of the next symbol after a prefix that it generated"
        )
    _check_distributions(model, total)
    return quantile(cumulative, torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=generator))
