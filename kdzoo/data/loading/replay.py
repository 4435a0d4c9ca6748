"""A user's map-style data set whose random transforms are seeded, so that every sample of an epoch can be repeated."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.randomness import mix_seed
from kdzoo.data.loading.batch_loader import BatchDataset
from kdzoo.data.loading.convert import BatchFormat, to_batch

# Last part of a seed's key: reading a sample and collating a batch must not repeat each other's random numbers.
_SAMPLE, _COLLATE = 0, 1


class ReplayedBatches(BatchDataset):
    """Converted batches of a user's data set, a function of (seed, epoch, index).

    The global generators, from which the transforms of a random data set draw, are seeded with (seed, epoch, index)
    before each sample. Afterwards they are restored, so that the caller's random numbers do not change.

    Args:
        source: The user's data set.
        collate: The user's ``collate_fn``.
        layout: How the user's batches are written.
        seed: Seed of the run.
        is_random: Whether a sample may differ from one reading to the next. If not, nothing is seeded, which is
            faster.
    """

    def __init__(
        self,
        source: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        layout: BatchFormat,
        seed: int,
        is_random: bool,
    ) -> None:
        self.source = source
        self.collate = collate
        self.layout = layout
        self.seed = seed
        self.is_random = is_random

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]  # map-style data sets are sized

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at ``index`` as they are in an epoch."""
        rows = index.tolist()
        batch = self._replay(epoch, rows) if self.is_random else self.collate([self.source[row] for row in rows])
        return to_batch(batch, index, self.layout)

    def _replay(self, epoch: int, rows: list[int]) -> Any:
        with preserved_randomness():
            samples = []
            for row in rows:
                seed_everywhere(mix_seed(self.seed, epoch, row, _SAMPLE))
                samples.append(self.source[row])
            # A collate_fn such as mixup draws for the batch, which its first row identifies within an epoch.
            seed_everywhere(mix_seed(self.seed, epoch, rows[0], _COLLATE))
            return self.collate(samples)


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Restore the global generators of torch (CPU), NumPy and Python on leaving the context."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_everywhere(seed: int) -> None:
    """Seed the global generators of torch (CPU), NumPy and Python."""
    # Not torch.manual_seed, which would also seed the accelerators, and nothing restores those.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # NumPy takes 32 bits
    random.seed(seed)
