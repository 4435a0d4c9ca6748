"""What every data module of kdzoo offers to models, distillers and runs.

A batch is a dictionary of tensors:

======  =================  =============================================================================
input   float32 [b, ...]   what the models see
target  int64 [b]          the class, or ``IGNORE`` where the label is missing
index   int64 [b]          position in the training split, 0..n_train-1 (or in the val or test split)
======  =================  =============================================================================
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.data.samplers import EpochBatches

IGNORE = -100

Batch = dict[str, Tensor]


class BatchData(pl.LightningDataModule, ABC):
    """A Lightning data module whose batches are dictionaries and whose training order is resumable.

    Train with ``Trainer(use_distributed_sampler=False)``: the sampler shares batches among processes itself.
    The val and test loaders give every process all samples, in index order, so each process evaluates by itself. The
    position in the training stream is not in ``state_dict()``: ``train_sampler.set_position(batches_done)`` sets it.
    All that follows holds after ``setup()``.
    """

    train_sampler: EpochBatches

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """What models need to know: ``in_shape`` (tuple, without the batch) and ``num_classes`` (int)."""

    @property
    @abstractmethod
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch, so that answers to them cannot be kept."""

    @property
    def has_equal_rows(self) -> bool:
        """Whether all samples are of one shape, so that answers to them make one tensor; strings rarely are."""
        return "vocab_size" not in self.sizes

    @abstractmethod
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training inputs in order, their dtype and shape."""

    @abstractmethod
    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""

    @abstractmethod
    def train_eval_dataloader(self) -> Iterable[Batch]:
        """Return the training samples in index order, in fixed blocks of ``eval_batch_size``."""

    def _share(self) -> tuple[int, int]:
        """Return this process's (rank, world_size): the trainer's, or those of a single process."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def same_batch(batch: Any) -> Any:
    """Return ``batch``: the collate_fn of loaders whose datasets return whole batches."""
    return batch


def batch_loader(dataset: Dataset[Batch], sampler: EpochBatches, **options: Any) -> DataLoader[Batch]:
    """Return a loader over a dataset that answers ``dataset[epoch, indices]`` with a whole batch.

    It has a generator of its own, so that to iterate draws nothing from the global random numbers.
    """
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        collate_fn=same_batch,
        generator=torch.Generator(),
        **options,
    )
