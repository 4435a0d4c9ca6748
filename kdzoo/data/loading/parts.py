"""The base of data in three parts that answer with whole batches: options, order, loaders.

What a batch holds is the part's affair; ``index`` is added here. Without labels there is no ``target``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches, check_batch_size
from kdzoo.core.validation import integer
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.data.loading.fingerprint import hash_inputs
from kdzoo.data.loading.splits import split_rows, take_rows
from kdzoo.errors import ConfigError, DataError

P = TypeVar("P", bound="Part")


class Part(ABC):
    """Samples that are asked for by their positions 0..n-1."""

    @abstractmethod
    def __len__(self) -> int:
        """Return n."""

    @abstractmethod
    def select(self: P, rows: Tensor) -> P:
        """Return the samples at ``rows`` (int64 [m]), in this order."""

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """Return the tensors of the samples at ``index`` (int64 [b]), each [b, ...]."""

    @abstractmethod
    def content(self) -> Iterable[Tensor]:
        """Yield what the inputs are made of, in order: equal content is equal inputs."""


@dataclass(frozen=True)
class Parts(Generic[P]):
    """The three parts; val may have no samples."""

    train: P
    val: P
    test: P


class PartBatches(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with a whole batch of a part."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        try:
            _, index = key
        except TypeError:
            problem = "the train loader's sampler was replaced; allowed: Trainer(use_distributed_sampler=False)"
            raise ConfigError(problem) from None
        return {**self.part.batch(index), "index": index}


class PartsData(BatchData, Generic[P]):
    """Data whose training samples never change; a subclass writes ``load()`` and ``sizes``.

    Args:
        batch_size: samples of a global training batch, over all processes, 1..n_train.
        train_size: use only so many training samples, always the same ones; None for all.
        seed: decides on the order.
        eval_batch_size: samples of an evaluation batch, >= 1.
        num_workers: processes that prepare training batches, >= 0; 0 is fastest for most.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``.
        DataError: in ``setup``, the data are unfit.
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        train_size: int | None = None,
        seed: int = 0,
        eval_batch_size: int = 256,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, 1)
        self.train_size = None if train_size is None else integer("train_size", train_size, 1)
        self.seed = integer("seed", seed, 0)
        self.eval_batch_size = integer("eval_batch_size", eval_batch_size, 1)
        self.num_workers = integer("num_workers", num_workers, 0)
        self._parts: Parts[P] | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def load(self) -> Parts[P]:
        """Return the three parts, train without regard to ``train_size``."""

    def multiplied(self, train: P) -> P:
        """Return the training part as an epoch goes through it; a subclass may repeat samples."""
        return train

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the parts are made together
        """Load and check the parts once, and take this process's share of the batches."""
        if self._parts is None:
            parts = self.load()
            for name, part in (("train", parts.train), ("test", parts.test)):
                if not len(part):
                    raise DataError(f"the {name} part is empty; allowed: at least 1 sample")
            if self.train_size is not None:
                order, _ = split_rows(len(parts.train), 0)
                parts = replace(parts, train=parts.train.select(take_rows(order, self.train_size)))
            parts = replace(parts, train=self.multiplied(parts.train))
            check_batch_size(self.batch_size, len(parts.train))
            self.train_sampler = EpochBatches(len(parts.train), self.batch_size, self.seed)
            self._parts = parts
        self.train_sampler.set_share(*self._share())

    @property
    def parts(self) -> Parts[P]:
        """The three parts, made by ``setup``."""
        if self._parts is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._parts

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the shuffled training batches of this process."""
        return batch_loader(PartBatches(self.parts.train), self.train_sampler, num_workers=self.num_workers)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training samples in index order, all of them in every process."""
        return self._plain_loader(self.parts.train)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val samples in order, all of them in every process; an empty list if there are none."""
        return self._plain_loader(self.parts.val) if len(self.parts.val) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test samples in order, all of them in every process."""
        return self._plain_loader(self.parts.test)

    @property
    def is_augmented(self) -> bool:
        """False: training samples never change."""
        return False

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training inputs in order."""
        if self._fingerprint is None:
            self._fingerprint = hash_inputs(self.parts.train.content())
        return self._fingerprint

    def summary(self) -> dict[str, int]:
        """Return n_train, n_val and n_test; n_labelled and num_classes are 0 where there are no labels."""
        parts = self.parts
        return {
            "n_train": len(parts.train),
            "n_labelled": 0,
            "n_val": len(parts.val),
            "n_test": len(parts.test),
            "num_classes": 0,
        }

    def _plain_loader(self, part: P) -> DataLoader[Batch]:
        sampler = EpochBatches(len(part), self.eval_batch_size, seed=0, shuffle=False)
        return batch_loader(PartBatches(part), sampler)
