"""Loaders over data sets that return a whole batch at once."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches


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
