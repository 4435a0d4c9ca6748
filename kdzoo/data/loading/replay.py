"""A user's map-style data set, read so that every sample of every epoch can be repeated."""

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
from kdzoo.data.loading.convert import Keys, to_batch

_SAMPLE, _COLLATE = 0, 1


class ReplayedBatches(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with a converted batch.

    The transforms of a random data set draw from generators that are seeded with (seed, epoch, index) before
    each sample; the caller's random numbers go on as if nothing had been drawn.

    Args:
        source: the user's data set.
        collate: the user's collate_fn.
        keys: names in batches that are mappings.
        seed: the run's seed.
        is_random: whether samples may differ from one reading to the next.
    """

    def __init__(
        self,
        source: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        keys: Keys,
        seed: int,
        is_random: bool,
    ) -> None:
        self.source = source
        self.collate = collate
        self.keys = keys
        self.seed = seed
        self.is_random = is_random

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]  # map-style data sets are sized

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        epoch, index = key
        rows = index.tolist()
        batch = self._replay(epoch, rows) if self.is_random else self.collate([self.source[i] for i in rows])
        return to_batch(batch, index, self.keys)

    def _replay(self, epoch: int, rows: list[int]) -> Any:
        with preserved_randomness():
            samples = []
            for row in rows:
                seed_everywhere(mix_seed(self.seed, epoch, row, _SAMPLE))
                samples.append(self.source[row])
            seed_everywhere(mix_seed(self.seed, epoch, rows[0], _COLLATE))
            return self.collate(samples)


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Put the global generators of torch (CPU), NumPy and Python back on leaving."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_everywhere(seed: int) -> None:
    """Seed the global generators of torch (CPU), NumPy and Python."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
