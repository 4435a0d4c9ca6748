"""The base of data modules of sequences of real vectors: splits without padding, batches of one length, loaders.

T is the same in all batches of all splits: the length of the longest sequence of all splits, or ``max_steps``.

Batches have ``input`` ``[b, T, d]``, the vectors of each sequence from its first step on, 0 at padding, and ``mask``
``[b, T]``, True at steps and False at padding. See :mod:`kdzoo.core.batch`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.core.validation import integer
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitDataModule
from kdzoo.data.loading.tensors import check_finite
from kdzoo.errors import DataError


@dataclass(frozen=True)
class RealSequences:
    """Sequences of vectors of different lengths, stored one after the other without padding.

    Args:
        steps: The vectors of all sequences, float32 ``[sum of lengths, d]``, finite.
        lengths: Number of steps of each sequence, >= 1, int64 ``[n]``.

    Raises:
        DataError: A length is below 1, the lengths do not add up to the number of steps, or a step is not finite.

    Example:
        >>> sequences = RealSequences(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1]))
        >>> sequences.padded(torch.tensor([1, 0]), 3)[0].tolist()
        [[[3.0], [0.0], [0.0]], [[1.0], [2.0], [0.0]]]
    """

    steps: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        empty = (self.lengths < 1).nonzero()
        if len(empty):
            row = int(empty[0])
            raise DataError(f"sequence {row} has {int(self.lengths[row])} steps; allowed: at least 1")
        if self.steps.ndim != 2 or len(self.steps) != int(self.lengths.sum()):
            shape = f"{list(self.steps.shape)} for lengths that add up to {int(self.lengths.sum())}"
            raise DataError(f"steps are {shape}; allowed: [sum of lengths, d]")
        check_finite(self.steps, "step")  # one NaN would spread over all weights within a training step

    @classmethod
    def of(cls, sequences: Sequence[Tensor], size: int) -> "RealSequences":
        """Return any number of sequences ``[T_i, size]`` as one object."""
        # The empty tensor gives the width if there are no sequences, as in an empty val split.
        steps = torch.cat([torch.empty(0, size), *sequences]).to(torch.float32)
        return cls(steps, torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def longest(self) -> int:
        """Return the largest length, 0 if there are no sequences."""
        return int(self.lengths.max()) if len(self) else 0

    def select(self, rows: Tensor) -> "RealSequences":
        """Return the sequences at ``rows`` (int64 ``[m]``), in this order."""
        positions, _ = self._positions(rows, self.longest())
        return RealSequences(self.steps[positions], self.lengths[rows])

    def truncate(self, max_steps: int) -> "RealSequences":
        """Return the first ``max_steps`` steps of every sequence; shorter sequences are unchanged."""
        positions, _ = self._positions(torch.arange(len(self)), max_steps)
        return RealSequences(self.steps[positions], self.lengths.clamp(max=max_steps))

    def padded(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return the sequences at ``rows`` in one tensor.

        Args:
            rows: Indices of sequences, int64 ``[m]``.
            width: Number of steps to which shorter sequences are padded with 0 and longer ones are truncated.

        Returns:
            The steps, float32 ``[m, width, d]``, and the mask, True at steps and False at padding, bool ``[m, width]``.
        """
        positions, mask = self._positions(rows, width)
        inputs = self.steps.new_zeros(*mask.shape, self.steps.shape[1])
        inputs[mask] = self.steps[positions]
        return inputs, mask

    def _positions(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return the positions in ``steps`` of the first ``width`` steps of the sequences at ``rows``, and the mask."""
        time = torch.arange(width)
        mask = time < self.lengths[rows, None]
        offsets = self.lengths.cumsum(0) - self.lengths
        return (offsets[rows, None] + time)[mask], mask


class PaddedSequences(DataSplit):
    """Sequences of at most ``width`` steps, whose batches are padded to ``width``."""

    def __init__(self, sequences: RealSequences, width: int) -> None:
        self.sequences = sequences
        self.width = width

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "PaddedSequences":
        """Return the sequences at ``rows`` (int64 ``[m]``), in this order."""
        return PaddedSequences(self.sequences.select(rows), self.width)

    def truncate(self, length: int) -> "PaddedSequences":
        """Return the first ``length`` steps of every sequence."""
        return PaddedSequences(self.sequences.truncate(length), min(self.width, length))

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` ``[b, width, d]`` and ``mask`` ``[b, width]``."""
        inputs, mask = self.sequences.padded(index, self.width)
        return {"input": inputs, "mask": mask}

    def content(self) -> Iterator[Tensor]:
        """Yield the width, the lengths and the steps."""
        # The width too: models may treat padding as input, and the lengths tell equal steps of other sequences apart.
        yield from (torch.tensor([self.width]), self.sequences.lengths, self.sequences.steps)


class SequenceData(SplitDataModule[PaddedSequences]):
    """Sequences of real vectors held in memory without padding; a subclass implements ``read()`` and nothing else.

    Args:
        max_steps: Number of steps T to which longer sequences are truncated, >= 1; None for the length of the longest
            sequence of all splits, which does not depend on ``train_size``.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: An argument is out of range; where that depends on the data, in ``setup``.
        DataError: In ``setup``, the data are not valid.
    """

    def __init__(self, *, max_steps: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.max_steps = None if max_steps is None else integer("max_steps", max_steps, 1)

    @abstractmethod
    def read(self) -> tuple[RealSequences, RealSequences, RealSequences]:
        """Return the sequences of train, val and test, whose vectors have one size; val may have none."""

    def load_splits(self) -> DataSplits[PaddedSequences]:
        """Read the sequences and truncate them."""
        splits = self.read()
        vector_sizes = [split.steps.shape[1] for split in splits]
        if len(set(vector_sizes)) > 1:
            raise DataError(f"vectors of train, val and test have the sizes {vector_sizes}; allowed: one size")
        # One width for all batches of all splits: models of fixed-length inputs and compiled graphs need it.
        width = self.max_steps or max(split.longest() for split in splits)
        return DataSplits(*(PaddedSequences(split.truncate(width), width) for split in splits))

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape``, (T, d)."""
        train = self.splits.train
        return {"in_shape": (train.width, train.sequences.steps.shape[1])}

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each training sequence, int64 ``[n_train]``."""
        return self.splits.train.sequences.lengths
