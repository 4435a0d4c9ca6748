"""The interface of data modules: what models, distillers and runs may ask for.

What only some data modules can do is listed in :mod:`kdzoo.core.abilities`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl

from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches


class BatchData(pl.LightningDataModule, ABC):
    """A Lightning data module whose batches are dictionaries and whose training order can be resumed.

    Train with ``Trainer(use_distributed_sampler=False)``, because the sampler shares batches among processes itself.
    The val and test loaders give every process all samples in index order, so that each process evaluates by itself.
    ``state_dict()`` does not contain the position in the training stream; ``train_sampler.set_position(batches_done)``
    sets it. All attributes and methods are valid after ``setup()``.

    Attributes:
        train_sampler: The sampler of ``train_dataloader()``.
    """

    train_sampler: EpochBatches

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Arguments of models that the data fix: ``in_shape`` (tuple, without the batch), ``num_classes`` (int)."""

    @property
    @abstractmethod
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch, so that the teacher's outputs cannot be cached."""

    @property
    def has_equal_rows(self) -> bool:
        """Whether all samples have one shape, so that the teacher's outputs make one tensor."""
        # Data with a vocabulary are token sequences, whose lengths differ; fixed-length blocks override this.
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
        """Return this process's (rank, world_size): those of the trainer, or of a single process without one."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
