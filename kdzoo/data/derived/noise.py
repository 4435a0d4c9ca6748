"""Training batches that hold the noise of a model: beside samples of other data, or alone.

The noise of a sample is a function of (seed, epoch, index): it is the same in any part of a batch, on any process and
after any restart. Its tensors are named ``noise.<node>``.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.randomness import mix_seed
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import integer
from kdzoo.data.derived.base import DerivedData
from kdzoo.data.loading.batch_loader import batch_loader

Draw = Callable[[int, torch.Generator], dict[str, Tensor]]
"""Draws the tensors of n samples, each [n, ...]."""
BLOCK = 16
"""Samples whose noise is drawn together."""
_VALIDATION = -1


def noise_of(draw: Draw, seed: int, epoch: int, index: Tensor) -> dict[str, Tensor]:
    """Return the noise of samples, each a function of (seed, epoch, index) alone.

    Args:
        draw: makes the noise of a block of samples.
        seed: of the run.
        epoch: the epoch.
        index: int64 [b], >= 0.
    """
    blocks, place = (index // BLOCK).unique(return_inverse=True)
    drawn = [draw(BLOCK, torch.Generator().manual_seed(mix_seed(seed, epoch, block))) for block in blocks.tolist()]
    rows = place * BLOCK + index % BLOCK
    return {name: torch.cat([one[name] for one in drawn]).index_select(0, rows) for name in drawn[0]}


class NoisyData(DerivedData):
    """Other data with the noise of a model, or the noise alone; its test part is that of the other data.

    Sequences come with their number of valid steps, ``length`` int64 [b], instead of a mask.

    Args:
        source: the data; set up.
        draw: makes the noise of n samples.
        alone: whether training and val batches hold nothing but noise, in as many batches as the source has.
        seed: of the noise, >= 0.
    """

    def __init__(self, source: BatchData, draw: Draw, *, alone: bool, seed: int = 0) -> None:
        super().__init__(source)
        self.draw, self.alone = draw, alone
        self.seed = integer("seed", seed, 0)
        theirs = source.train_sampler
        self.train_sampler = theirs
        if alone:
            self.train_sampler = EpochBatches(theirs.n, theirs.batch_size, theirs.seed, False, theirs.drop_last)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        loader: Any = self.source.train_dataloader()
        samples = None if self.alone else loader.dataset
        workers = 0 if self.alone else loader.num_workers
        return batch_loader(_Noisy(self, samples), self.train_sampler, num_workers=workers)

    def train_eval_dataloader(self) -> Iterable[Batch]:
        """Return the training samples in index order, with the noise of epoch 0."""
        if not self.alone:
            return _WithNoise(self.source.train_eval_dataloader(), self)
        sampler = EpochBatches(self.train_sampler.n, self.train_sampler.batch_size, self.seed, shuffle=False)
        return batch_loader(_Noisy(self, None), sampler)

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val part with noise that is the same in every epoch."""
        part = self.source.val_dataloader()
        return [] if isinstance(part, list) and not part else _WithNoise(part, self)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the source's fingerprint, the seed and whether the noise is alone."""
        return hashlib.sha256(f"{self.source.fingerprint()} {self.seed} {self.alone}".encode()).hexdigest()

    def noise(self, epoch: int, index: Tensor) -> dict[str, Tensor]:
        """Return the noise of samples of an epoch."""
        return noise_of(self.draw, self.seed, epoch, index)

    def only_noise(self, epoch: int, index: Tensor) -> Batch:
        """Return a batch without samples: its ``input`` is empty unless the noise has one."""
        return {"input": torch.empty(len(index), 0), "index": index, **self.noise(epoch, index)}


class _Noisy(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with a batch of another data set and its noise, or with noise."""

    def __init__(self, data: NoisyData, samples: Dataset[Batch] | None) -> None:
        self.data, self.samples = data, samples

    def __len__(self) -> int:
        return self.data.train_sampler.n

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        epoch, index = key
        if self.samples is None:
            return self.data.only_noise(epoch, index)
        return {**with_lengths(self.samples[key]), **self.data.noise(epoch, index)}


class _WithNoise:
    """Batches of a loader, in order, with noise of their positions."""

    def __init__(self, batches: Any, data: NoisyData) -> None:
        self.batches, self.data = batches, data

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for batch in self.batches:
            index = torch.arange(seen, seen + len(batch["input"]))
            seen += len(index)
            if self.data.alone:
                yield self.data.only_noise(_VALIDATION, index)
            else:
                yield {**with_lengths(batch), **self.data.noise(_VALIDATION, index)}


def with_lengths(batch: Batch) -> Batch:
    """Return a batch whose mask of valid steps, where it has one, is given by the number of them."""
    if "mask" not in batch:
        return batch
    return {**{key: value for key, value in batch.items() if key != "mask"}, "length": batch["mask"].sum(1)}
