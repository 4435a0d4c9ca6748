"""The base of every data set of sequences of real vectors: ragged parts, batches padded to one length, loaders.

T is the same in all batches of all parts: the longest sequence of all parts, or ``max_steps``.

======  =====================  =========================================================================
input   float32 [b, T, d]      the vectors of each sequence from its first step on; 0 where padded
mask    bool [b, T]            the steps of the sequence; not the padding
index   int64 [b]              position in the training part (or in the val or test part)
======  =====================  =========================================================================
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
    """Sequences of vectors, one after the other.

    Args:
        steps: float32 [sum of lengths, d], finite.
        lengths: int64 [n], each >= 1.

    Raises:
        DataError: a length is below 1, the lengths do not add up to the steps, or a step is not finite.

    Example:
        >>> two = RealSequences(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1]))
        >>> two.padded(torch.tensor([1, 0]), 3)[0].tolist()
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
            found = f"{list(self.steps.shape)} for lengths that add up to {int(self.lengths.sum())}"
            raise DataError(f"steps are {found}; allowed: [sum of lengths, d]")
        check_finite(self.steps, "step")

    @classmethod
    def of(cls, sequences: Sequence[Tensor], size: int) -> "RealSequences":
        """Return sequences [T_i, size], any number of them, as one object."""
        steps = torch.cat([torch.empty(0, size), *sequences]).to(torch.float32)
        return cls(steps, torch.tensor([len(one) for one in sequences], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def longest(self) -> int:
        """Return the largest length, 0 if there are no sequences."""
        return int(self.lengths.max()) if len(self) else 0

    def select(self, rows: Tensor) -> "RealSequences":
        """Return the sequences at ``rows`` (int64 [m]), in this order."""
        places, _ = self._places(rows, self.longest())
        return RealSequences(self.steps[places], self.lengths[rows])

    def cut(self, most: int) -> "RealSequences":
        """Return the first ``most`` steps of every sequence, all of it where it is not longer."""
        places, _ = self._places(torch.arange(len(self)), most)
        return RealSequences(self.steps[places], self.lengths.clamp(max=most))

    def padded(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return the sequences at ``rows`` padded with 0, float32 [m, width, d], and where they are, bool [m, width].

        What is longer than ``width`` is cut.
        """
        places, mask = self._places(rows, width)
        inputs = self.steps.new_zeros(*mask.shape, self.steps.shape[1])
        inputs[mask] = self.steps[places]
        return inputs, mask

    def _places(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return where the first ``width`` steps of the sequences at ``rows`` lie in ``steps``, and the mask."""
        time = torch.arange(width)
        mask = time < self.lengths[rows, None]
        starts = self.lengths.cumsum(0) - self.lengths
        return (starts[rows, None] + time)[mask], mask


class PaddedSequences(DataSplit):
    """Sequences of at most ``width`` steps, whose batches are padded to ``width``."""

    def __init__(self, sequences: RealSequences, width: int) -> None:
        self.sequences = sequences
        self.width = width

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "PaddedSequences":
        """Return the sequences at ``rows`` (int64 [m]), in this order."""
        return PaddedSequences(self.sequences.select(rows), self.width)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` [b, width, d] and ``mask`` [b, width]."""
        inputs, mask = self.sequences.padded(index, self.width)
        return {"input": inputs, "mask": mask}

    def content(self) -> Iterator[Tensor]:
        """Yield the width, the lengths and the steps."""
        yield from (torch.tensor([self.width]), self.sequences.lengths, self.sequences.steps)


class SequenceData(SplitDataModule[PaddedSequences]):
    """Sequences of real vectors held in memory; a subclass writes ``read()`` and nothing else.

    Memory holds the steps without padding; only batches are padded.

    Args:
        max_steps: T, to which longer sequences are cut, >= 1; None for the longest sequence of all parts, which
            does not depend on ``train_size``.
        options: see :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``.
        DataError: in ``setup``, the data are unfit.
    """

    def __init__(self, *, max_steps: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.max_steps = None if max_steps is None else integer("max_steps", max_steps, 1)

    @abstractmethod
    def read(self) -> tuple[RealSequences, RealSequences, RealSequences]:
        """Return the sequences of train, val and test, whose vectors have one size; val may have none."""

    def load_splits(self) -> DataSplits[PaddedSequences]:
        """Read the sequences and cut them."""
        sequences = self.read()
        found = [one.steps.shape[1] for one in sequences]
        if len(set(found)) > 1:
            raise DataError(f"vectors of train, val and test have the sizes {found}; allowed: one size")
        width = self.max_steps or max(one.longest() for one in sequences)
        return DataSplits(*(PaddedSequences(one.cut(width), width) for one in sequences))

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape``, (T, d)."""
        train = self.splits.train
        return {"in_shape": (train.width, train.sequences.steps.shape[1])}

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each training sequence, int64 [n_train]."""
        return self.splits.train.sequences.lengths
