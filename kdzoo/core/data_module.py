"""The interface of data modules: the attributes and methods that every one has.

The optional ones, which only some data modules have, are the protocols in :mod:`kdzoo.core.abilities`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl

from kdzoo.core.arguments import full_signature
from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches


class BatchData(pl.LightningDataModule, ABC):
    """A Lightning data module whose batches are dictionaries and whose training order can be resumed.

    Train with ``Trainer(use_distributed_sampler=False)``, because the sampler already distributes the batches among the
    processes. The val and test loaders return all samples in index order in every process, so that each process
    evaluates independently. ``state_dict()`` does not contain the position in the training data; set it with
    ``train_sampler.set_position(batches_done)``. All attributes and methods are valid after ``setup()``.

    Attributes:
        train_sampler: The sampler of ``train_dataloader()``.
        max_samples: Largest number of samples of each split, but at least one training batch; None for all. Set before
            ``setup``, for trial runs.
        max_batch_size: Largest number of samples of a batch, in training over all processes; None for the data module's
            own. Set before ``setup``, for trial runs. Evaluation batches of a foreign data module keep their size.
        max_sequence_length: Largest number of tokens of a text, or of steps of a sequence of vectors, of which longer
            ones are cut; None for all. Set before ``setup``, for trial runs. Data of another form, and sequences of
            tokens whose end is predicted, are not cut.
    """

    train_sampler: EpochBatches
    max_samples: int | None = None
    max_batch_size: int | None = None
    max_sequence_length: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Subclasses pass ``**options`` on to their base; editors and notebooks show what these may be.
        cls.__signature__ = full_signature(cls)  # type: ignore[attr-defined]

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Arguments of models that the data determine.

        These are ``in_shape`` (tuple of int, without the batch dimension) and ``num_classes`` (int); of token sequences
        also ``vocab_size`` (int).
        """

    @property
    @abstractmethod
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch, so that the teacher's outputs cannot be cached."""

    @property
    def has_equal_rows(self) -> bool:
        """Whether all samples have the same shape, so that the teacher's outputs fit into one tensor."""
        # Data with a vocabulary are token sequences, whose lengths differ; fixed-length blocks override this.
        return "vocab_size" not in self.sizes

    @abstractmethod
    def fingerprint(self) -> str:
        """Return the SHA-256 hash (hexadecimal) of the training inputs in their order, their dtype and their shape."""

    @abstractmethod
    def summary(self) -> dict[str, int]:
        """Return the numbers ``n_train``, ``n_labelled``, ``n_val``, ``n_test`` and ``num_classes``."""

    @abstractmethod
    def train_eval_dataloader(self) -> Iterable[Batch]:
        """Return batches of the training samples in index order, ``eval_batch_size`` samples in each but the last."""

    def _limited(self, batch_size: int) -> int:
        """Return a batch size, or ``max_batch_size`` if that is smaller."""
        return batch_size if self.max_batch_size is None else min(batch_size, self.max_batch_size)

    def _rank_and_world_size(self) -> tuple[int, int]:
        """Return the rank of this process and the number of processes: those of the trainer; (0, 1) without one."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
