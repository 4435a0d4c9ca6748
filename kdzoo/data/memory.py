"""The base of every data set that fits into memory: options, splits, loaders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches, check_batch_size
from kdzoo.core.validation import integer
from kdzoo.data.images.augment import Augment
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.data.loading.fingerprint import hash_inputs
from kdzoo.data.loading.splits import Split, SplitPlan, Splits, plain_classes
from kdzoo.data.loading.tensors import checked_split
from kdzoo.errors import ConfigError


class WholeBatches(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with a whole batch: one copy of the rows, augmented if asked."""

    def __init__(self, split: Split, augment: Augment, seed: int) -> None:
        self.inputs, self.targets = split
        self.augment = augment if augment.is_random else None
        self.seed = seed

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        try:
            epoch, index = key
        except TypeError:
            problem = "the train loader's sampler was replaced; allowed: Trainer(use_distributed_sampler=False)"
            raise ConfigError(problem) from None
        inputs = self.inputs.index_select(0, index)  # four times as fast as inputs[index]
        if self.augment is not None:
            inputs = self.augment(inputs, self.seed, epoch, index)
        return {"input": inputs, "target": self.targets.index_select(0, index), "index": index}


class InMemoryData(BatchData):
    """Data held in memory as tensors; a subclass writes ``load()`` and nothing else.

    The val and test splits are the same for every seed. The train split is what val leaves, reduced by
    ``train_size``, then by ``exclude_classes``, then robbed of all labels but ``labels_per_class``.

    Args:
        val_size: part of the training data that is set aside: a fraction in [0, 1) or a count; 0 for none.
        batch_size: samples of a global training batch, over all processes, 1..n_train.
        labels_per_class: training labels kept for each class, chosen by ``seed``; the other targets are
            ``IGNORE``; None keeps all.
        exclude_classes: classes that are left out of the train split only.
        augment: mapping with keys shift, crop, flip (see :class:`kdzoo.data.images.augment.Augment`), or None.
        train_size: use only so many training samples, always the same ones; None for all.
        num_classes: number of classes; None takes the largest training label + 1.
        seed: decides on labels, order and augmentation.
        eval_batch_size: samples of an evaluation batch, >= 1.
        num_workers: processes that prepare training batches, >= 0; 0 is fastest unless augmentation is slow.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``.
        DataError: in ``setup``, the data are unfit.
    """

    def __init__(
        self,
        *,
        val_size: float | int = 0.1,
        batch_size: int = 128,
        labels_per_class: int | None = None,
        exclude_classes: Sequence[int] = (),
        augment: Mapping[str, Any] | None = None,
        train_size: int | None = None,
        num_classes: int | None = None,
        seed: int = 0,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        classes = plain_classes(exclude_classes)
        self.plan = SplitPlan(val_size, train_size, classes, labels_per_class, num_classes)
        self.batch_size = integer("batch_size", batch_size, 1)
        self.eval_batch_size = integer("eval_batch_size", eval_batch_size, 1)
        self.num_workers = integer("num_workers", num_workers, 0)
        self.seed = integer("seed", seed, 0)
        self.augment = Augment.from_options(augment)
        self._splits: Splits | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def load(self) -> tuple[Any, Any]:
        """Return (train, test), each a pair (inputs [n, ...], integer labels [n]) of arrays or tensors."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the splits are made together
        """Load, check and divide the data once, and take this process's share of the batches."""
        if self._splits is None:
            train, test = self.load()
            train, test = checked_split(train, "train"), checked_split(test, "test")
            splits = self.plan.divide(train, test, self.seed)
            self._check_train(splits.train)
            self.train_sampler = EpochBatches(len(splits.train.targets), self.batch_size, self.seed)
            self._splits = splits
        self.train_sampler.set_share(*self._share())

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the shuffled, augmented training batches of this process."""
        dataset = WholeBatches(self.splits.train, self.augment, self.seed)
        return batch_loader(dataset, self.train_sampler, num_workers=self.num_workers)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training samples as they are, in index order, all of them in every process."""
        return self._plain_loader(self.splits.train)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val samples in order, all of them in every process; an empty list if there are none."""
        return self._plain_loader(self.splits.val) if len(self.splits.val.targets) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test samples in order, all of them in every process."""
        return self._plain_loader(self.splits.test)

    @property
    def splits(self) -> Splits:
        """The three splits, made by ``setup``."""
        if self._splits is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._splits

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape`` (tuple, without the batch) and ``num_classes``."""
        return {"in_shape": tuple(self.splits.train.inputs.shape[1:]), "num_classes": self.splits.num_classes}

    @property
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch."""
        return self.augment.is_random

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training inputs in order, without augmentation."""
        if self._fingerprint is None:
            self._fingerprint = hash_inputs([self.splits.train.inputs])
        return self._fingerprint

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        train, val, test, num_classes = self.splits
        return {
            "n_train": len(train.targets),
            "n_labelled": int((train.targets != IGNORE).sum()),
            "n_val": len(val.targets),
            "n_test": len(test.targets),
            "num_classes": num_classes,
        }

    def _plain_loader(self, split: Split) -> DataLoader[Batch]:
        sampler = EpochBatches(len(split.targets), self.eval_batch_size, seed=0, shuffle=False)
        return batch_loader(WholeBatches(split, Augment(), seed=0), sampler)

    def _check_train(self, train: Split) -> None:
        """Check the options whose range depends on the training split."""
        check_batch_size(self.batch_size, len(train.targets))
        self.augment.check_shape(tuple(train.inputs.shape[1:]))
