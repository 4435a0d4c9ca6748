"""A transfer set of sequences that are sampled from language models, batch by batch, when they are needed."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.randomness import mix_seed
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import integer
from kdzoo.data.derived.base import DerivedData
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader
from kdzoo.text.language_model import LanguageModel, sample
from kdzoo.text.token_sequences import TokenSequences


class SampledTokenSequences(DerivedData):
    """Training sequences sampled from language models; the val and test splits are those of other data.

    Nothing is stored: an epoch of any length takes the memory of one batch. A batch of an epoch is the same whenever
    it is read, so that training resumes exactly. Batches have one more key, ``member`` int64 ``[b]``: the number of the
    model that the sequence was sampled from.

    The limits of the data for trial runs, ``max_samples`` and ``max_sequence_length``, are limits of ``n`` and
    ``max_length`` too.

    Args:
        data: The data whose val and test splits and sizes are used, after ``setup()``.
        models: At least one language model.
        n: Sequences of an epoch, >= 1.
        shares: Fraction of the sequences that is sampled from each model, adding up to 1; None means equal fractions.
        max_length: Number of tokens after which a sequence is cut, >= 1.
        batch_size: Sequences of a training batch, >= 1. Larger batches sample faster and need more memory.
        seed: Seed of the sequences, >= 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        data: Any,
        models: Sequence[LanguageModel],
        *,
        n: int,
        shares: Sequence[float] | None = None,
        max_length: int = 100,
        batch_size: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(data)
        self.models = list(models)
        limits = (data.max_samples, data.max_sequence_length) if isinstance(data, BatchData) else (None, None)
        self.n = _limited(integer("n", n, 1), limits[0])
        self.seed = integer("seed", seed, 0)
        self.max_length = _limited(integer("max_length", max_length, 1), limits[1])
        self.shares = list(shares) if shares is not None else [1 / len(self.models)] * len(self.models)
        self.batch_size = min(integer("batch_size", batch_size, 1), self.n)
        # Not shuffled: the sequences of an epoch are independent of each other.
        self.train_sampler = EpochBatches(self.n, self.batch_size, self.seed, shuffle=False)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        return batch_loader(_SampledBatches(self), self.train_sampler)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the sequences of epoch 0 in order."""
        return batch_loader(_SampledBatches(self), EpochBatches(self.n, self.batch_size, self.seed, shuffle=False))

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the sequences of epoch 0."""
        # Later epochs are determined by the same models and seed, so that the hash of epoch 0 is enough.
        digest = hashlib.sha256()
        for batch in self.train_eval_dataloader():
            digest.update(batch["input"].numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        return {**self.source.summary(), "n_train": self.n, "n_labelled": self.n}

    def model_of(self, index: Tensor) -> Tensor:
        """Return the number of the model that each sequence is sampled from, int64 ``[b]``."""
        # Each model has a contiguous range of positions: most batches then call one model only, in a large batch.
        bounds = (torch.tensor(self.shares, dtype=torch.float64).cumsum(0)[:-1] * self.n).round()
        return torch.bucketize(index, bounds.long(), right=True)


def _limited(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)


class _SampledBatches(BatchDataset):
    """Batches of sequences that are sampled when the batch is read."""

    def __init__(self, data: SampledTokenSequences) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.n

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Sample the sequences at ``index``."""
        member = self.data.model_of(index)
        # The batch is identified by its first position. Sequences therefore depend on the batch size and on the number
        # of processes, unlike noise: a language model samples a batch with one generator.
        first = int(index[0])
        sampled = [
            sample(
                self.data.models[number],
                int((member == number).sum()),
                max_length=self.data.max_length,
                seed=mix_seed(self.data.seed, epoch, first, number),
            )
            for number in member.unique().tolist()
        ]
        inputs, targets = TokenSequences.cat(sampled).inputs_and_targets(self.data.sizes["vocab_size"])
        return {"input": inputs, "target": targets, "mask": targets != IGNORE, "index": index, "member": member}
