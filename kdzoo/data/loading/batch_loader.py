"""Data sets that return a whole batch at once, and loaders over them.

A loader that asks for one sample at a time and collates them spends most of its time in Python when the samples are
tensors in memory. Here the sampler yields ``(epoch, indices)`` for a batch, and one indexing operation makes the batch.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches
from kdzoo.errors import ConfigError


class BatchDataset(Dataset[Batch]):
    """A map-style data set whose keys are ``(epoch, indices)`` and whose values are batches.

    Raises:
        ConfigError: On indexing, if the key is a single index. Lightning replaces the sampler by a
            distributed one for several processes unless it is told not to; that would undo the resumable order.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at ``index`` (int64 ``[b]``) as they are in an epoch."""

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        try:
            epoch, index = key
        except TypeError:
            problem = "the train loader's sampler was replaced; allowed: Trainer(use_distributed_sampler=False)"
            raise ConfigError(problem) from None
        return self.get_batch(epoch, index)


def identity_collate(batch: Any) -> Any:
    """Return ``batch`` unchanged: the ``collate_fn`` of loaders whose data sets return whole batches."""
    # A named function rather than a lambda, because worker processes that are spawned have to pickle it.
    return batch


def batch_loader(dataset: Dataset[Batch], sampler: EpochBatches, **options: Any) -> DataLoader[Batch]:
    """Return a loader over a data set whose values ``dataset[epoch, indices]`` are whole batches.

    Args:
        dataset: Usually a :class:`BatchDataset`.
        sampler: Yields the keys.
        options: See ``torch.utils.data.DataLoader``.
    """
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,  # switches off automatic batching: each key of the sampler is a whole batch
        collate_fn=identity_collate,
        # An iterator draws a base seed from this generator. The default one is torch's global generator, and then
        # evaluating more often would change the random numbers that training sees.
        generator=torch.Generator(),
        **options,
    )
