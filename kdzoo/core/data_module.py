"""The contract of data modules: what models, distillers and runs may ask of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl

from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches


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
