"""Batches that contain the noise of a generative model, together with samples of other data or without them.

Teacher and student are given the same noise, so that their samples can be compared pairwise. The noise of a sample is
a function of (seed, epoch, index): it is the same in any micro-batch, on any process and after any restart. Its tensors
are named ``noise.<node>``.
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
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader

Draw = Callable[[int, torch.Generator], dict[str, Tensor]]
"""Draws the noise tensors of n samples, each ``[n, ...]``, with a generator."""

# Samples whose noise is drawn together. Making and seeding a generator costs more than the draws of one sample, so that
# a generator per sample would be slow; larger blocks draw more noise that a shuffled batch then does not use.
BLOCK = 16
# The epoch of noise that never changes. Training epochs are >= 0.
_VALIDATION = -1


def noise_of(draw: Draw, seed: int, epoch: int, index: Tensor) -> dict[str, Tensor]:
    """Return the noise of samples; the noise of each depends on (seed, epoch, index) only.

    Args:
        draw: Draws the noise of a block of samples.
        seed: Seed of the run.
        epoch: The epoch.
        index: Positions of the samples, int64 ``[b]``, >= 0.

    Returns:
        The tensors that ``draw`` names, each ``[b, ...]``.
    """
    blocks, block_of_sample = (index // BLOCK).unique(return_inverse=True)
    drawn = [draw(BLOCK, torch.Generator().manual_seed(mix_seed(seed, epoch, block))) for block in blocks.tolist()]
    rows = block_of_sample * BLOCK + index % BLOCK
    return {name: torch.cat([block[name] for block in drawn]).index_select(0, rows) for name in drawn[0]}


class NoisyData(DerivedData):
    """Other data with the noise of a generative model added, or only noise; the test split has no noise.

    Batches of sequences have their number of valid steps, ``length`` int64 ``[b]``, instead of a mask.

    Args:
        source: The other data, after ``setup()``.
        draw: Draws the noise of n samples.
        noise_only: Whether training and val batches contain only noise, in as many batches as the source has.
        seed: Seed of the noise, >= 0.

    Raises:
        ConfigError: If the seed is out of range.
    """

    def __init__(self, source: BatchData, draw: Draw, *, noise_only: bool, seed: int = 0) -> None:
        super().__init__(source)
        self.draw, self.noise_only = draw, noise_only
        self.seed = integer("seed", seed, 0)
        sampler = source.train_sampler
        self.train_sampler = sampler
        if noise_only:
            # Not shuffled: noise has no order that could bias training, and consecutive positions share blocks.
            self.train_sampler = EpochBatches(sampler.n, sampler.batch_size, sampler.seed, False, sampler.drop_last)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        loader: Any = self.source.train_dataloader()
        samples = None if self.noise_only else loader.dataset
        workers = 0 if self.noise_only else loader.num_workers
        return batch_loader(_NoisyBatches(self, samples), self.train_sampler, num_workers=workers)

    def train_eval_dataloader(self) -> Iterable[Batch]:
        """Return the training samples in index order, with the noise of epoch 0."""
        if not self.noise_only:
            return _WithNoise(self.source.train_eval_dataloader(), self)
        sampler = EpochBatches(self.train_sampler.n, self.train_sampler.batch_size, self.seed, shuffle=False)
        return batch_loader(_NoisyBatches(self, None), sampler)

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val split with noise that is the same in every epoch."""
        loader = self.source.val_dataloader()
        return [] if isinstance(loader, list) and not loader else _WithNoise(loader, self)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the source's fingerprint, the seed and ``noise_only``."""
        return hashlib.sha256(f"{self.source.fingerprint()} {self.seed} {self.noise_only}".encode()).hexdigest()

    def noise(self, epoch: int, index: Tensor) -> dict[str, Tensor]:
        """Return the noise of the samples at ``index`` in an epoch."""
        return noise_of(self.draw, self.seed, epoch, index)

    def noise_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return a batch without samples: its ``input`` is ``[b, 0]`` unless the noise has one."""
        # Every batch has an ``input``, because its first dimension is the number of samples.
        return {"input": torch.empty(len(index), 0), "index": index, **self.noise(epoch, index)}


class _NoisyBatches(BatchDataset):
    """Batches of another data set with their noise, or batches of only noise."""

    def __init__(self, data: NoisyData, samples: Dataset[Batch] | None) -> None:
        self.data, self.samples = data, samples

    def __len__(self) -> int:
        return self.data.train_sampler.n

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at ``index`` and their noise."""
        if self.samples is None:
            return self.data.noise_batch(epoch, index)
        return {**with_lengths(self.samples[epoch, index]), **self.data.noise(epoch, index)}


class _WithNoise:
    """Batches of an evaluation loader, in order, with the noise of their positions."""

    def __init__(self, batches: Any, data: NoisyData) -> None:
        self.batches, self.data = batches, data

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        # Positions are counted here, because evaluation batches of user-defined data need not have an ``index``.
        n_done = 0
        for batch in self.batches:
            index = torch.arange(n_done, n_done + len(batch["input"]))
            n_done += len(index)
            if self.data.noise_only:
                yield self.data.noise_batch(_VALIDATION, index)
            else:
                yield {**with_lengths(batch), **self.data.noise(_VALIDATION, index)}


def with_lengths(batch: Batch) -> Batch:
    """Return a batch with ``length``, the number of valid steps int64 ``[b]``, instead of ``mask`` if it has one."""
    if "mask" not in batch:
        return batch
    return {**{key: value for key, value in batch.items() if key != "mask"}, "length": batch["mask"].sum(1)}
