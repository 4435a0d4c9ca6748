"""TracedSequences of a language model: strings, with a hidden state and a next-token distribution at every point.

A string of m tokens has m + 1 points (before its first token, then after each); the points of all strings are
numbered through, string after string, as in :class:`kdzoo.text.token_sequences.TokenSequences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences

FEATURES = ("hidden", "sqrt_probs", "both")


@dataclass(frozen=True, eq=False)
class TracedSequences:
    """What one teacher shows: strings, and what the teacher holds at each of their N points.

    Args:
        strings: The strings, n of them, tokens in 0..S-1.
        vocab_size: V = S + 1; token S is the end of a string.
        hidden: Hidden states ``[N, H]``, any floating dtype; None when only the distributions are known.
        next_probs: Next-token distributions ``[N, V]`` with the end last; None when only hidden states are known.

    Raises:
        DataError: If there is no string, a token is outside the alphabet, or a tensor does not fit the points.

    Example:
        >>> import torch
        >>> seen = TracedSequences.of([[0, 1], []], torch.randn(4, 8))
        >>> seen.n_prefixes, seen.vocab_size
        (4, 3)
    """

    strings: TokenSequences
    vocab_size: int
    hidden: Tensor | None = None
    next_probs: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.strings) == 0:
            raise DataError("sequences must hold at least one string, got none")
        self.strings.check(self.vocab_size)
        for name in ("hidden", "next_probs"):
            _check_points(name, getattr(self, name), self.n_prefixes)
        if self.hidden is None and self.next_probs is None:
            raise DataError("trajectories need hidden or next_probs, got neither")
        if self.next_probs is not None:
            _check_distributions(self.next_probs, self.vocab_size)

    @classmethod
    def of(
        cls,
        sequences: TokenSequences | Sequence[Any],
        hidden: Any = None,
        next_probs: Any = None,
        *,
        vocab_size: int | None = None,
    ) -> "TracedSequences":
        """Return trajectories from strings and one array ``[N, .]`` or a list of arrays ``[m_i + 1, .]``.

        Args:
            sequences: The strings, or a list of sequences of tokens.
            hidden: Hidden states: one array of all points, or one array for each string.
            next_probs: Next-token distributions in the same form, or None.
            vocab_size: V; None takes it from next_probs, or else from the greatest token.

        Raises:
            DataError: See :class:`TracedSequences`.
        """
        strings = sequences if isinstance(sequences, TokenSequences) else TokenSequences.of(sequences)
        states, probs = _flat("hidden", hidden, strings), _flat("next_probs", next_probs, strings)
        if vocab_size is None:
            seen = int(strings.tokens.max()) + 2 if len(strings.tokens) else 1
            vocab_size = probs.shape[1] if probs is not None else seen
        return cls(strings, vocab_size, states, probs)

    @property
    def n_prefixes(self) -> int:
        """Number of points N."""
        return self.strings.n_prefixes

    @property
    def n_tokens(self) -> int:
        """Size of the alphabet S, without the end."""
        return self.vocab_size - 1

    def symbols(self) -> Tensor:
        """Return the symbol that follows each point, the end included, int64 ``[N]``."""
        symbols = torch.full((self.n_prefixes,), self.n_tokens)
        source, _, token = self.strings.edges()
        symbols[source] = token
        return symbols

    def features(self, kind: str = "both") -> Tensor:
        """Return the points ``[N, d]`` to be clustered; each part is centred and has total variance 1.

        Args:
            kind: "hidden", "sqrt_probs" (square root of the next-token distribution, whose Euclidean distance
                is Hellinger's up to a factor), or "both" side by side; what is missing is left out.
        """
        parts = []
        if self.hidden is not None and (kind != "sqrt_probs" or self.next_probs is None):
            parts.append(_unit_variance(self.hidden))
        if self.next_probs is not None and (kind != "hidden" or self.hidden is None):
            parts.append(_unit_variance(self.next_probs.clamp_min(0).sqrt()))
        return torch.cat(parts, 1)

    def select(self, index: Tensor) -> "TracedSequences":
        """Return the trajectories of the strings with the given numbers, int64 ``[m]``."""
        points = self.prefixes_of(index)
        return replace(
            self,
            strings=self.strings.select(index),
            hidden=None if self.hidden is None else self.hidden[points],
            next_probs=None if self.next_probs is None else self.next_probs[points],
        )

    def prefixes_of(self, index: Tensor) -> Tensor:
        """Return the numbers of the points of the given strings, in the order that ``select`` gives them."""
        lengths = self.strings.lengths[index] + 1
        shift = self.strings.first_prefixes()[index] - (lengths.cumsum(0) - lengths)
        return shift.repeat_interleave(lengths) + torch.arange(int(lengths.sum()))


def _flat(name: str, value: Any, strings: TokenSequences) -> Tensor | None:
    """Return one floating array ``[N, .]`` from one or from one for each string."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        parts = [_tensor(f"{name}[{number}]", one) for number, one in enumerate(value)]
        wanted = (strings.lengths + 1).tolist()
        if len(parts) != len(wanted):
            raise DataError(f"{name} must hold one array for each of the {len(wanted)} strings, got {len(parts)}")
        for number, (part, rows) in enumerate(zip(parts, wanted, strict=True)):
            if part.ndim != 2 or len(part) != rows:
                raise DataError(f"{name}[{number}] must have shape [{rows}, .], got {list(part.shape)}")
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise DataError(f"{name} must hold arrays of one width, got the widths {sorted(widths)}")
        value = torch.cat(parts)
    flat = _tensor(name, value)
    return flat if flat.is_floating_point() else flat.double()


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} must be an array of numbers: {str(error).splitlines()[0]}") from error


def _check_points(name: str, value: Tensor | None, n_prefixes: int) -> None:
    if value is None:
        return
    if value.ndim != 2 or len(value) != n_prefixes:
        raise DataError(
            f"{name} must have shape [{n_prefixes}, .], one row for each point (tokens + 1 per string), "
            f"got {list(value.shape)}"
        )
    wrong = ~value.isfinite().all(1)
    if wrong.any():
        raise DataError(f"{name} must be finite, got {value[wrong][0].tolist()} at point {int(wrong.nonzero()[0])}")


def _check_distributions(next_probs: Tensor, vocab_size: int) -> None:
    if next_probs.shape[1] != vocab_size:
        raise DataError(f"next_probs must have {vocab_size} columns (the end last), got {next_probs.shape[1]}")
    wrong = ((next_probs.sum(1) - 1).abs() > 1e-3) | (next_probs < 0).any(1)
    if wrong.any():
        point = int(wrong.nonzero()[0])
        raise DataError(
            f"next_probs must be >= 0 and sum to 1, got the sum {next_probs[point].sum():g} at point {point}"
        )


def _unit_variance(values: Tensor) -> Tensor:
    """Return float32 values, centred, divided by the root of the sum of their variances."""
    centred = values.float() - values.float().mean(0)
    return centred / centred.square().sum(1).mean().sqrt().clamp_min(1e-12)
