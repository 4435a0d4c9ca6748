"""Sets of strings of tokens: one flat tensor with a length for each string.

Notation: S tokens 0..S-1, the end of a string is token S, so vocab_size V = S + 1. A set holds n strings with
``total`` tokens. A string of m tokens has m + 1 points: before its first token, then after each of them. The
points of a set are numbered through, string after string, 0..total+n-1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.errors import DataError


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """A set of strings of tokens; the empty string is one as well.

    Args:
        tokens: the tokens of all strings, one after the other, int64 [total].
        lengths: number of tokens of each string, >= 0, int64 [n].

    Raises:
        DataError: a tensor is no int64 vector, a length is negative, or the lengths do not add up to total.

    Example:
        >>> strings = TokenSequences.of([[0, 1, 1], [], [2]])
        >>> len(strings), strings.lengths.tolist(), strings.tokens.tolist()
        (3, [3, 0, 1], [0, 1, 1, 2])
    """

    tokens: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("lengths", self.lengths)):
            if value.dtype != torch.int64 or value.ndim != 1:
                raise DataError(f"{name} must be int64 [any], got {value.dtype} {list(value.shape)}")
        if (self.lengths < 0).any() or int(self.lengths.sum()) != len(self.tokens):
            raise DataError(
                f"lengths must be >= 0 and add up to the number of tokens, {len(self.tokens)}; "
                f"the least is {int(self.lengths.min())} and the sum {int(self.lengths.sum())}"
            )

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int] | Any]) -> "TokenSequences":
        """Return the strings that are listed one by one, each as integers in a list, array or tensor.

        Raises:
            DataError: a sequence holds something else than integers.

        Example:
            >>> TokenSequences.of([[3, 1], []]).to_lists()
            [[3, 1], []]
        """
        parts = [_as_tokens(number, sequence) for number, sequence in enumerate(sequences)]
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return cls(torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64), lengths)

    @classmethod
    def cat(cls, sets: Sequence["TokenSequences"]) -> "TokenSequences":
        """Return all strings of at least one set, in order."""
        return cls(torch.cat([one.tokens for one in sets]), torch.cat([one.lengths for one in sets]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Tensor:
        start, length = int(self.starts[number]), int(self.lengths[number])
        return self.tokens[start : start + length]

    @cached_property
    def starts(self) -> Tensor:
        """Place of each string's first token in ``tokens`` [n]."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def n_prefixes(self) -> int:
        """Number of points; as every string has its end, it is the number of symbols as well."""
        return len(self.tokens) + len(self)

    @property
    def owner(self) -> Tensor:
        """Number of the string to which each token belongs [total]."""
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    def select(self, index: Tensor) -> "TokenSequences":
        """Return the strings with the given numbers, int64 [m], in that order; numbers may repeat.

        Example:
            >>> import torch
            >>> TokenSequences.of([[0], [1, 2], []]).select(torch.tensor([1, 1, 0])).to_lists()
            [[1, 2], [1, 2], [0]]
        """
        lengths = self.lengths[index]
        shift = self.starts[index] - (lengths.cumsum(0) - lengths)
        places = shift.repeat_interleave(lengths) + torch.arange(int(lengths.sum()), device=lengths.device)
        return TokenSequences(self.tokens[places], lengths)

    def to_lists(self) -> list[list[int]]:
        """Return the strings as lists of ints."""
        return [part.tolist() for part in self.tokens.split(self.lengths.tolist())]

    def padded(self, fill: int) -> Tensor:
        """Return the strings as rows [n, length of the longest], filled up with ``fill``.

        Example:
            >>> TokenSequences.of([[0, 1], [], [2]]).padded(-1).tolist()
            [[0, 1], [-1, -1], [2, -1]]
        """
        longest = int(self.lengths.max()) if len(self) else 0
        rows = self.tokens.new_full((len(self), longest), fill)
        rows[torch.arange(longest, device=rows.device) < self.lengths[:, None]] = self.tokens
        return rows

    def inputs_and_targets(self, vocab_size: int) -> tuple[Tensor, Tensor]:
        """Return what a language model reads and what it has to predict, [n, 1 + length of the longest] each.

        The end token S = vocab_size - 1 also marks the beginning: a string a b is the input S a b with the
        target a b S. Padded positions have the input S and the target ``IGNORE``.

        Example:
            >>> inputs, targets = TokenSequences.of([[0, 1], []]).inputs_and_targets(3)
            >>> inputs.tolist(), targets.tolist()
            ([[2, 0, 1], [2, 2, 2]], [[0, 1, 2], [2, -100, -100]])
        """
        end = vocab_size - 1
        begin = self.tokens.new_full((len(self), 1), end)
        inputs = torch.cat([begin, self.padded(end)], 1)
        targets = torch.cat([self.padded(IGNORE), torch.full_like(begin, IGNORE)], 1)
        return inputs, targets.scatter_(1, self.lengths[:, None], end)

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return source point, target point and token of each step from point to point, [total] each.

        Example:
            >>> [one.tolist() for one in TokenSequences.of([[5, 6], [], [7]]).edges()]
            [[0, 1, 4], [1, 2, 5], [5, 6, 7]]
        """
        source = torch.arange(len(self.tokens), device=self.tokens.device) + self.owner
        return source, source + 1, self.tokens

    def roots(self) -> Tensor:
        """Return the first point of each string [n]."""
        return self.starts + torch.arange(len(self), device=self.lengths.device)

    def lasts(self) -> Tensor:
        """Return the last point of each string [n]."""
        return self.first_prefixes() + self.lengths

    def check(self, vocab_size: int) -> None:
        """Refuse tokens outside 0..vocab_size-2.

        Raises:
            DataError: naming the first such token, its string and its position.

        Example:
            >>> TokenSequences.of([[0], [1, 7]]).check(3)
            Traceback (most recent call last):
                ...
            kdzoo.errors.DataError: string 1 has token 7 at position 1; allowed: 0..1
        """
        wrong = ((self.tokens < 0) | (self.tokens >= vocab_size - 1)).nonzero()
        if len(wrong):
            place = int(wrong[0])
            number = int(self.owner[place])
            raise DataError(
                f"string {number} has token {int(self.tokens[place])} at position {place - int(self.starts[number])}; "
                f"allowed: 0..{vocab_size - 2}"
            )


def _as_tokens(number: int, sequence: Any) -> Tensor:
    """Return one listed string as int64 [m]."""
    try:
        tokens = torch.as_tensor(sequence)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"string {number} must be a sequence of integers, got {sequence!r}") from error
    if tokens.ndim == 1 and tokens.numel() == 0:
        return tokens.long()
    if tokens.ndim != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise DataError(f"string {number} must be a sequence of integers, got {tokens.dtype} {list(tokens.shape)}")
    return tokens.long()


def token_sequences_of(batch: Batch) -> TokenSequences:
    """Return the strings that a batch of language-model inputs holds: every row without its begin marker and padding.

    Example:
        >>> batch = {"input": torch.tensor([[2, 0, 1], [2, 1, 2]]), "target": torch.tensor([[0, 1, 2], [1, 2, IGNORE]])}
        >>> token_sequences_of(batch | {"mask": batch["target"] != IGNORE}).to_lists()
        [[0, 1], [1]]
    """
    read = batch["mask"][:, 1:] if "mask" in batch else torch.ones_like(batch["input"][:, 1:], dtype=torch.bool)
    return TokenSequences(batch["input"][:, 1:][read], read.sum(1))
