"""The base of data modules that hold three splits whose samples can be indexed: options, training order, loaders."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches, check_batch_size
from kdzoo.core.validation import integer
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader
from kdzoo.data.loading.fingerprint import hash_inputs
from kdzoo.data.loading.splits import split_rows, take_rows
from kdzoo.errors import DataError

S = TypeVar("S", bound="DataSplit")


class DataSplit(ABC):
    """One split of a data set (train, val or test): samples at the positions 0..n-1."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples n."""

    @abstractmethod
    def select(self: S, rows: Tensor) -> S:
        """Return the samples at ``rows`` (int64 ``[m]``), in this order."""

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """Return the tensors of the samples at ``index`` (int64 ``[b]``), each ``[b, ...]``, without ``index``."""

    def truncate(self: S, length: int) -> S:  # noqa: ARG002 - most samples have no length
        """Return the samples cut to their first ``length`` positions; other data than sequences are unchanged."""
        return self

    def unlabelled(self) -> Tensor:
        """Return whether the label of each sample is missing, bool ``[n]``; False for samples that need none."""
        return torch.zeros(len(self), dtype=torch.bool)

    @abstractmethod
    def content(self) -> Iterable[Tensor]:
        """Yield the tensors that determine the inputs, in order; splits with equal content have equal inputs."""


@dataclass(frozen=True)
class DataSplits(Generic[S]):
    """The three splits of a data set; val may be empty."""

    train: S
    val: S
    test: S


def first_samples(split: S, count: int) -> S:
    """Return the first samples of a split in a fixed random order, all of them if it has no more than ``count``.

    Samples whose label is missing come last, since a few labels among many samples would be lost otherwise.
    """
    if len(split) <= count:
        return split
    order, _ = split_rows(len(split), 0)
    unlabelled = split.unlabelled()[order]
    return split.select(take_rows(torch.cat([order[~unlabelled], order[unlabelled]]), count))


class SplitBatches(BatchDataset):
    """Batches of a split, the same in every epoch; adds ``index`` to what the split returns."""

    def __init__(self, split: DataSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def get_batch(self, epoch: int, index: Tensor) -> Batch:  # noqa: ARG002 - samples do not depend on the epoch
        """Return the samples at ``index`` and ``index`` itself."""
        return {**self.split.batch(index), "index": index}


class SplitDataModule(BatchData, Generic[S]):
    """A data module of three splits; a subclass writes ``load_splits()`` and ``sizes``.

    Training samples are the same in every epoch unless a subclass says otherwise.

    Args:
        batch_size: Samples of a global training batch, over all processes, in 1..n_train.
        train_size: Use only this many training samples, the same ones for every seed; None uses all.
        seed: Decides the order of the training samples.
        eval_batch_size: Samples of an evaluation batch, >= 1. It bounds memory and has no effect on results.
        num_workers: Processes that prepare training batches, >= 0. The splits are in memory, so that copying a batch
            to another process usually takes longer than making it; 0 is fastest for most.

    Raises:
        ConfigError: If an argument is out of range; where that depends on the data, in ``setup``.
        DataError: In ``setup``, if the data are not valid.
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        train_size: int | None = None,
        seed: int = 0,
        eval_batch_size: int = 256,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, 1)
        # Private, so that a subclass may define another ``train_size`` that chooses samples in another way.
        self._train_size = None if train_size is None else integer("train_size", train_size, 1)
        self.seed = integer("seed", seed, 0)
        self.eval_batch_size = integer("eval_batch_size", eval_batch_size, 1)
        self.num_workers = integer("num_workers", num_workers, 0)
        self._splits: DataSplits[S] | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def load_splits(self) -> DataSplits[S]:
        """Return the three splits; ``train_size`` is applied afterwards."""

    def repeated(self, train: S) -> S:
        """Return the training split as one epoch goes through it; a subclass may repeat samples."""
        return train

    def make_sampler(self, train: S) -> EpochBatches:
        """Return the sampler of the training split; a subclass may group samples or give ranks whole batches."""
        return EpochBatches(len(train), self.batch_size, self.seed)

    def train_batches(self) -> BatchDataset:
        """Return the data set that the training loader reads; a subclass may augment or mask samples."""
        return SplitBatches(self.splits.train)

    def ordered_batches(self, split: S) -> BatchDataset:
        """Return the data set that the evaluation loaders read."""
        return SplitBatches(split)

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the three splits are made together
        """Load and check the splits once, and take this process's share of the batches."""
        if self._splits is None:
            self.batch_size = self._limited(self.batch_size)
            # Evaluation batches too: the cost of prediction is measured on one of them.
            self.eval_batch_size = self._limited(self.eval_batch_size)
            splits = self.load_splits()
            for name, split in (("train", splits.train), ("test", splits.test)):
                if not len(split):
                    raise DataError(f"the {name} split is empty; allowed: at least 1 sample")
            if self._train_size is not None:
                # The prefix of one fixed random order: a smaller train_size is a subset of a larger one, so that
                # learning curves over train_size compare nested sets.
                order, _ = split_rows(len(splits.train), 0)
                splits = replace(splits, train=splits.train.select(take_rows(order, self._train_size)))
            splits = self._shortened(splits)
            splits = replace(splits, train=self.repeated(splits.train))
            check_batch_size(self.batch_size, len(splits.train))
            self.train_sampler = self.make_sampler(splits.train)
            self._splits = splits
        # The trainer, which knows the rank, may have been attached after the first setup.
        self.train_sampler.set_share(*self._rank_and_world_size())

    def _shortened(self, splits: DataSplits[S]) -> DataSplits[S]:
        """Return at most ``max_samples`` random samples of each split, the same for every seed, cut if too long."""
        shortened: dict[str, S] = {"train": splits.train, "val": splits.val, "test": splits.test}
        if self.max_samples is not None:
            counts = {
                "train": max(self.max_samples, self.batch_size),
                "val": self.max_samples,
                "test": self.max_samples,
            }
            shortened = {name: first_samples(split, counts[name]) for name, split in shortened.items()}
        if self.max_sequence_length is not None:
            shortened = {name: split.truncate(self.max_sequence_length) for name, split in shortened.items()}
        return DataSplits(**shortened)

    @property
    def splits(self) -> DataSplits[S]:
        """The three splits, made by ``setup``."""
        if self._splits is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._splits

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the shuffled training batches of this process."""
        return batch_loader(self.train_batches(), self.train_sampler, num_workers=self.num_workers)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training samples without augmentation, in index order, all of them in every process."""
        return self._ordered_loader(self.ordered_batches(self.splits.train))

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val samples in order, all of them in every process; an empty list if there are none."""
        return self._ordered_loader(self.ordered_batches(self.splits.val)) if len(self.splits.val) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test samples in order, all of them in every process."""
        return self._ordered_loader(self.ordered_batches(self.splits.test))

    @property
    def is_augmented(self) -> bool:
        """False: training samples are the same in every epoch."""
        return False

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training inputs in order."""
        if self._fingerprint is None:
            self._fingerprint = hash_inputs(self.splits.train.content())
        return self._fingerprint

    def summary(self) -> dict[str, int]:
        """Return n_train, n_val and n_test; n_labelled and num_classes are 0 because nothing has a label."""
        return {
            "n_train": len(self.splits.train),
            "n_labelled": 0,
            "n_val": len(self.splits.val),
            "n_test": len(self.splits.test),
            "num_classes": 0,
        }

    def _ordered_loader(self, batches: BatchDataset) -> DataLoader[Batch]:
        # Without shuffling the seed has no effect, and every rank gets all samples: each evaluates independently.
        return batch_loader(batches, EpochBatches(len(batches), self.eval_batch_size, seed=0, shuffle=False))
