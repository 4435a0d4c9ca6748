"""Sets of token sequences of different lengths, stored without padding: one flat tensor and a length per sequence.

Notation: S tokens ``0..S-1``; the end of a sequence is the symbol S, so ``vocab_size`` is V = S + 1. A set holds n
sequences with ``total`` tokens together. A sequence of m tokens has m + 1 prefixes: the empty one, then one after each
token. The prefixes of a set are numbered consecutively, sequence by sequence, from 0 to total + n - 1; vectors and
probabilities "of all prefixes" are in this order.
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
    """A set of token sequences, some of which may be empty.

    Args:
        tokens: The tokens of all sequences, one sequence after the other, int64 ``[total]``.
        lengths: Number of tokens of each sequence, >= 0, int64 ``[n]``.

    Raises:
        DataError: A tensor is not an int64 vector, a length is negative, or the lengths do not add up to ``total``.

    Example:
        >>> sequences = TokenSequences.of([[0, 1, 1], [], [2]])
        >>> len(sequences), sequences.lengths.tolist(), sequences.tokens.tolist()
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
                f"the smallest is {int(self.lengths.min())} and the sum {int(self.lengths.sum())}"
            )

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int] | Any]) -> "TokenSequences":
        """Return a set of the listed sequences, each of them integers in a list, array or tensor.

        Raises:
            DataError: A sequence holds anything but integers.

        Example:
            >>> TokenSequences.of([[3, 1], []]).to_lists()
            [[3, 1], []]
        """
        rows = [_as_tokens(index, sequence) for index, sequence in enumerate(sequences)]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        # torch.cat rejects an empty list, but a set without sequences is valid (a split may be empty).
        return cls(torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64), lengths)

    @classmethod
    def cat(cls, sets: Sequence["TokenSequences"]) -> "TokenSequences":
        """Return the sequences of one or more sets, in order, as one set."""
        return cls(torch.cat([part.tokens for part in sets]), torch.cat([part.lengths for part in sets]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tensor:
        offset, length = int(self.offsets[index]), int(self.lengths[index])
        return self.tokens[offset : offset + length]

    @cached_property
    def offsets(self) -> Tensor:
        """Position of each sequence's first token in ``tokens``, int64 ``[n]``."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def n_prefixes(self) -> int:
        """Number of prefixes, total + n; also the number of symbols to predict, since every sequence has an end."""
        return len(self.tokens) + len(self)

    @property
    def sequence_ids(self) -> Tensor:
        """Index of the sequence that each token belongs to, int64 ``[total]``."""
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    def select(self, index: Tensor) -> "TokenSequences":
        """Return the sequences ``index`` (int64 ``[m]``), in that order; an index may repeat.

        Example:
            >>> import torch
            >>> TokenSequences.of([[0], [1, 2], []]).select(torch.tensor([1, 1, 0])).to_lists()
            [[1, 2], [1, 2], [0]]
        """
        lengths = self.lengths[index]
        # Old minus new offset of each selected sequence: added to the new positions it gives the old ones.
        shift = self.offsets[index] - (lengths.cumsum(0) - lengths)
        positions = shift.repeat_interleave(lengths) + torch.arange(int(lengths.sum()), device=lengths.device)
        return TokenSequences(self.tokens[positions], lengths)

    def truncate(self, length: int) -> "TokenSequences":
        """Return the first ``length`` tokens of every sequence; shorter sequences are unchanged.

        Example:
            >>> TokenSequences.of([[0, 1, 2], [], [3]]).truncate(2).to_lists()
            [[0, 1], [], [3]]
        """
        positions = torch.arange(len(self.tokens), device=self.tokens.device) - self.offsets[self.sequence_ids]
        return TokenSequences(self.tokens[positions < length], self.lengths.clamp(max=length))

    def to_lists(self) -> list[list[int]]:
        """Return the sequences as lists of ints."""
        return [row.tolist() for row in self.tokens.split(self.lengths.tolist())]

    def padded(self, fill: int) -> Tensor:
        """Return the sequences as rows padded with ``fill`` at their end, int64 ``[n, longest]``.

        Example:
            >>> TokenSequences.of([[0, 1], [], [2]]).padded(-1).tolist()
            [[0, 1], [-1, -1], [2, -1]]
        """
        longest = int(self.lengths.max()) if len(self) else 0
        rows = self.tokens.new_full((len(self), longest), fill)
        # A mask selects row by row from left to right, which is the order of the flat tokens.
        rows[torch.arange(longest, device=rows.device) < self.lengths[:, None]] = self.tokens
        return rows

    def inputs_and_targets(self, vocab_size: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a language model, int64 ``[n, 1 + longest]`` each.

        The end symbol ``S = vocab_size - 1`` also marks the beginning: the sequence ``a b`` has the input ``S a b`` and
        the target ``a b S``. Padded positions have the input S and the target ``IGNORE``.

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
        """Return the step that each token makes: prefix before it, prefix after it, token; int64 ``[total]`` each.

        Example:
            >>> [part.tolist() for part in TokenSequences.of([[5, 6], [], [7]]).edges()]
            [[0, 1, 4], [1, 2, 5], [5, 6, 7]]
        """
        # Each earlier sequence has one prefix more than it has tokens.
        source = torch.arange(len(self.tokens), device=self.tokens.device) + self.sequence_ids
        return source, source + 1, self.tokens

    def first_prefixes(self) -> Tensor:
        """Return the number of each sequence's empty prefix, int64 ``[n]``."""
        return self.offsets + torch.arange(len(self), device=self.lengths.device)

    def last_prefixes(self) -> Tensor:
        """Return the number of the prefix that is the whole sequence, int64 ``[n]``."""
        return self.first_prefixes() + self.lengths

    def check(self, vocab_size: int) -> None:
        """Check that all tokens are in ``0..vocab_size-2``.

        Raises:
            DataError: Names the first other token, its sequence and its position.

        Example:
            >>> TokenSequences.of([[0], [1, 7]]).check(3)
            Traceback (most recent call last):
                ...
            kdzoo.errors.DataError: sequence 1 has token 7 at position 1; allowed: 0..1
        """
        invalid = ((self.tokens < 0) | (self.tokens >= vocab_size - 1)).nonzero()
        if len(invalid):
            flat = int(invalid[0])
            index = int(self.sequence_ids[flat])
            raise DataError(
                f"sequence {index} has token {int(self.tokens[flat])} at position {flat - int(self.offsets[index])}; "
                f"allowed: 0..{vocab_size - 2}"
            )


def _as_tokens(index: int, sequence: Any) -> Tensor:
    """Return one listed sequence as int64 ``[m]``."""
    try:
        tokens = torch.as_tensor(sequence)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"sequence {index} must hold integers, got {sequence!r}") from error
    # torch and NumPy make an empty list a float tensor, so its type is not checked.
    if tokens.ndim == 1 and tokens.numel() == 0:
        return tokens.long()
    if tokens.ndim != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise DataError(f"sequence {index} must hold integers, got {tokens.dtype} {list(tokens.shape)}")
    return tokens.long()


def token_sequences_of(batch: Batch) -> TokenSequences:
    """Return the token sequences in a batch of language-model inputs, without begin marker and padding.

    Args:
        batch: ``input``, int64 ``[b, T]``, and ``mask``, bool ``[b, T]``; without a mask nothing is padding.

    Example:
        >>> batch = {"input": torch.tensor([[2, 0, 1], [2, 1, 2]]), "target": torch.tensor([[0, 1, 2], [1, 2, IGNORE]])}
        >>> token_sequences_of(batch | {"mask": batch["target"] != IGNORE}).to_lists()
        [[0, 1], [1]]
    """
    tokens = batch["input"][:, 1:]
    is_token = batch["mask"][:, 1:] if "mask" in batch else torch.ones_like(tokens, dtype=torch.bool)
    return TokenSequences(tokens[is_token], is_token.sum(1))
