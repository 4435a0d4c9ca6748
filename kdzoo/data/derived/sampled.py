"""A transfer set that language models write: every training batch is sampled when it is asked for."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.randomness import mix_seed
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import integer
from kdzoo.data.derived.base import DerivedData
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.text.language_model import LanguageModel, sample
from kdzoo.text.token_sequences import TokenSequences


class SampledTokenSequences(DerivedData):
    """TokenSequences that language models write for training; all other parts are those of other data.

    Nothing is kept: an epoch of any length takes the memory of one batch. A batch of an epoch is the same
    whenever it is asked for, so that training resumes exactly. Batches have one more key, ``member`` [b]: the
    number of the model that wrote the string.

    Args:
        data: whose val and test parts and sizes are used; set up.
        models: at least one language model.
        n: strings of an epoch, >= 1.
        shares: part of the strings that each model writes, adding up to 1; None: equal parts.
        max_length: tokens after which a string is cut, >= 1.
        batch_size: strings of a training batch, >= 1.
        seed: of the strings.

    Raises:
        ConfigError: an argument is out of its range.
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
        self.n = integer("n", n, 1)
        self.seed = integer("seed", seed, 0)
        self.max_length = integer("max_length", max_length, 1)
        self.shares = list(shares) if shares is not None else [1 / len(self.models)] * len(self.models)
        self.batch_size = min(integer("batch_size", batch_size, 1), n)
        self.train_sampler = EpochBatches(n, self.batch_size, self.seed, shuffle=False)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        return batch_loader(_Written(self), self.train_sampler)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the strings of epoch 0 in order."""
        return batch_loader(_Written(self), EpochBatches(self.n, self.batch_size, self.seed, shuffle=False))

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the strings of epoch 0."""
        digest = hashlib.sha256()
        for batch in self.train_eval_dataloader():
            digest.update(batch["input"].numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        return {**self.source.summary(), "n_train": self.n, "n_labelled": self.n}

    def writer_of(self, index: Tensor) -> Tensor:
        """Return the number of the model that writes each string, int64 [b]: contiguous parts of an epoch."""
        bounds = (torch.tensor(self.shares, dtype=torch.float64).cumsum(0)[:-1] * self.n).round()
        return torch.bucketize(index, bounds.long(), right=True)


class _Written(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with strings written for it."""

    def __init__(self, data: SampledTokenSequences) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.n

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        epoch, index = key
        member = self.data.writer_of(index)
        first = int(index[0])
        parts = [
            sample(
                self.data.models[number],
                int((member == number).sum()),
                max_length=self.data.max_length,
                seed=mix_seed(self.data.seed, epoch, first, number),
            )
            for number in member.unique().tolist()
        ]
        inputs, targets = TokenSequences.cat(parts).inputs_and_targets(self.data.sizes["vocab_size"])
        return {"input": inputs, "target": targets, "mask": targets != IGNORE, "index": index, "member": member}
