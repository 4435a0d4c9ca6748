"""Sequences traced through a language model: strings, with a hidden state and a prediction after every prefix.

Notation: n strings over S tokens, V = S + 1 symbols with the end. A string of m tokens has m + 1 prefixes, the empty
one and the string itself included; the N prefixes of all strings are numbered consecutively, string after string, as
in :class:`kdzoo.text.token_sequences.TokenSequences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdzoo.errors import DataError, first_line
from kdzoo.text.token_sequences import TokenSequences

FEATURES = ("hidden", "sqrt_probs", "both")

# By how much the sum of a next-token distribution may differ from 1: teachers may compute in half precision.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class TracedSequences:
    """Strings of one teacher, with its hidden state and next-token distribution after each of their N prefixes.

    Args:
        strings: The n strings, n >= 1, tokens in 0..S-1.
        vocab_size: Number of symbols V = S + 1; token S is the end of a string.
        hidden: Hidden states ``[N, H]``, any floating dtype; None if only the distributions are known.
        next_probs: Next-token distributions ``[N, V]`` with the end last; None if only hidden states are known.

    Raises:
        DataError: If there is no string, a token is outside the alphabet, or a tensor does not fit the prefixes.

    Example:
        >>> import torch
        >>> traced = TracedSequences.of([[0, 1], []], torch.randn(4, 8))
        >>> traced.n_prefixes, traced.vocab_size
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
        for name, value in (("hidden", self.hidden), ("next_probs", self.next_probs)):
            _check_rows(name, value, self.n_prefixes)
        if self.hidden is None and self.next_probs is None:
            raise DataError("traced sequences need hidden or next_probs, got neither")
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
        """Return traced sequences from strings and one array ``[N, .]`` or a list of arrays ``[m_i + 1, .]``.

        Args:
            sequences: The strings, or a list of sequences of tokens.
            hidden: Hidden states: one array for all prefixes, or one array for each string; None if unknown.
            next_probs: Next-token distributions in the same form; None if unknown.
            vocab_size: Number of symbols V; None takes it from ``next_probs``, or else from the largest token.

        Raises:
            DataError: See :class:`TracedSequences`.
        """
        strings = sequences if isinstance(sequences, TokenSequences) else TokenSequences.of(sequences)
        states, probs = _flat("hidden", hidden, strings), _flat("next_probs", next_probs, strings)
        if vocab_size is None:
            from_tokens = int(strings.tokens.max()) + 2 if len(strings.tokens) else 1
            vocab_size = probs.shape[1] if probs is not None else from_tokens
        return cls(strings, vocab_size, states, probs)

    @property
    def n_prefixes(self) -> int:
        """Number of prefixes N."""
        return self.strings.n_prefixes

    @property
    def n_tokens(self) -> int:
        """Size of the alphabet S, without the end."""
        return self.vocab_size - 1

    def symbols(self) -> Tensor:
        """Return the symbol that follows each prefix, which may be the end, int64 ``[N]``."""
        symbols = torch.full((self.n_prefixes,), self.n_tokens)
        source, _, token = self.strings.edges()
        symbols[source] = token
        return symbols

    def features(self, kind: str = "both") -> Tensor:
        """Return the points ``[N, d]`` to be clustered; each part is centred and has total variance 1.

        Equal variances give hidden states and distributions the same weight, for any scale and width of the teacher.

        Args:
            kind: "hidden", "sqrt_probs" (square root of the next-token distribution, whose Euclidean distance
                is Hellinger's up to a factor), or "both" side by side. A part that is unknown is left out.
        """
        parts = []
        if self.hidden is not None and (kind != "sqrt_probs" or self.next_probs is None):
            parts.append(_unit_variance(self.hidden))
        if self.next_probs is not None and (kind != "hidden" or self.hidden is None):
            parts.append(_unit_variance(self.next_probs.clamp_min(0).sqrt()))
        return torch.cat(parts, 1)

    def select(self, index: Tensor) -> "TracedSequences":
        """Return the traced sequences of the strings with the given indices, int64 ``[m]``."""
        prefixes = self.prefixes_of(index)
        return replace(
            self,
            strings=self.strings.select(index),
            hidden=None if self.hidden is None else self.hidden[prefixes],
            next_probs=None if self.next_probs is None else self.next_probs[prefixes],
        )

    def prefixes_of(self, index: Tensor) -> Tensor:
        """Return the indices of the prefixes of the given strings, int64, in the order of :meth:`select`."""
        lengths = self.strings.lengths[index] + 1
        # Position of each string among all prefixes, minus its position among the selected ones.
        shift = self.strings.first_prefixes()[index] - (lengths.cumsum(0) - lengths)
        return shift.repeat_interleave(lengths) + torch.arange(int(lengths.sum()))


def _flat(name: str, value: Any, strings: TokenSequences) -> Tensor | None:
    """Return one floating array ``[N, .]`` from one array, or from one for each string."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        parts = [_tensor(f"{name}[{index}]", array) for index, array in enumerate(value)]
        expected = (strings.lengths + 1).tolist()
        if len(parts) != len(expected):
            raise DataError(f"{name} must hold one array for each of the {len(expected)} strings, got {len(parts)}")
        for index, (part, rows) in enumerate(zip(parts, expected, strict=True)):
            if part.ndim != 2 or len(part) != rows:
                raise DataError(f"{name}[{index}] must have shape [{rows}, .], got {list(part.shape)}")
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
        raise DataError(f"{name} must be an array of numbers: {first_line(error)}") from error


def _check_rows(name: str, value: Tensor | None, n_prefixes: int) -> None:
    if value is None:
        return
    if value.ndim != 2 or len(value) != n_prefixes:
        raise DataError(
            f"{name} must have shape [{n_prefixes}, .], one row for each prefix (tokens + 1 per string), "
            f"got {list(value.shape)}"
        )
    wrong = ~value.isfinite().all(1)
    if wrong.any():
        raise DataError(f"{name} must be finite, got {value[wrong][0].tolist()} at prefix {int(wrong.nonzero()[0])}")


def _check_distributions(next_probs: Tensor, vocab_size: int) -> None:
    if next_probs.shape[1] != vocab_size:
        raise DataError(f"next_probs must have {vocab_size} columns (the end last), got {next_probs.shape[1]}")
    wrong = ((next_probs.sum(1) - 1).abs() > TOLERANCE) | (next_probs < 0).any(1)
    if wrong.any():
        prefix = int(wrong.nonzero()[0])
        raise DataError(
            f"next_probs must be >= 0 and sum to 1, got the sum {next_probs[prefix].sum():g} at prefix {prefix}"
        )


def _unit_variance(values: Tensor) -> Tensor:
    """Return float32 values, centred, divided by the root of the sum of their variances; 0 where all rows are equal."""
    # Differences from a row lose no digits where all rows share a large offset, and are 0 where they are equal.
    moved = values - values[0]
    # Squares of very large or small values would be infinite or 0.
    moved = (moved / moved.abs().max().clamp_min(torch.finfo(moved.dtype).tiny)).float()
    centred = moved - moved.mean(0)
    return centred / centred.square().sum(1).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
