"""The base of labelled data sets that fit into memory as tensors."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.validation import integer
from kdzoo.data.images.augment import Augment
from kdzoo.data.loading.batch_loader import BatchDataset
from kdzoo.data.loading.class_labels import check_any_label, check_labels, count_classes
from kdzoo.data.loading.split_data import DataSplits, SplitBatches, SplitDataModule
from kdzoo.data.loading.splits import SplitPlan, class_tuple
from kdzoo.data.loading.tensors import TensorSplit, checked_split
from kdzoo.errors import DataError


class AugmentedBatches(SplitBatches):
    """Batches of a split with augmented inputs, a function of (seed, epoch, index).

    Args:
        split: The samples.
        augment: The augmentation.
        seed: Seed of the run.
    """

    def __init__(self, split: TensorSplit, augment: Augment, seed: int) -> None:
        super().__init__(split)
        self.augment = augment
        self.seed = seed

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at ``index`` as they are in an epoch."""
        batch = super().get_batch(epoch, index)
        return {**batch, "input": self.augment(batch["input"], self.seed, epoch, index)}


class InMemoryData(SplitDataModule[TensorSplit]):
    """Labelled data held in memory as tensors; a subclass writes ``load()`` and nothing else.

    The val and test splits are the same for every seed. The train split is what val leaves, reduced by
    ``train_size``, then by ``exclude_classes``; last, all labels but ``labels_per_class`` are hidden.

    Args:
        val_size: Training samples that are set aside for val: a fraction in [0, 1) or a count; 0 for none.
        batch_size: Samples of a global training batch, over all processes, in 1..n_train.
        labels_per_class: Training labels kept for each class, chosen by ``seed``; the other targets are
            ``IGNORE``; None keeps all.
        exclude_classes: Classes that are left out of the train split only.
        augment: Mapping with keys shift, crop, flip (see :class:`kdzoo.data.images.augment.Augment`), or None.
        train_size: Use only this many training samples, the same ones for every seed; None uses all.
        num_classes: Number of classes; None takes the largest training label + 1, and then every class below needs a
            training sample.
        seed: Decides labels, order and augmentation.
        eval_batch_size: Samples of an evaluation batch, >= 1. It bounds memory and has no effect on results.
        num_workers: Processes that prepare training batches, >= 0; 0 is fastest unless augmentation is slow.

    Attributes:
        ignore_index: The label that stands for a missing one.

    Raises:
        ConfigError: If an argument is out of range; where that depends on the data, in ``setup``.
        DataError: In ``setup``, if the data are not valid.
    """

    ignore_index: int = IGNORE

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
        # The plan applies train_size itself, between two of its other steps, so the base class is not told of it.
        super().__init__(batch_size=batch_size, seed=seed, eval_batch_size=eval_batch_size, num_workers=num_workers)
        self.plan = SplitPlan(val_size, train_size, class_tuple(exclude_classes), labels_per_class)
        self.augment = Augment.from_options(augment)
        self._num_classes = None if num_classes is None else integer("num_classes", num_classes, 1)

    @abstractmethod
    def load(self) -> tuple[Any, Any]:
        """Return (train, test), each a pair (inputs ``[n, ...]``, integer labels ``[n]``) of arrays or tensors."""

    def load_splits(self) -> DataSplits[TensorSplit]:
        """Load, check and divide the data."""
        train_arrays, test_arrays = self.load()
        train = checked_split(train_arrays, "train", self.ignore_index)
        test = checked_split(test_arrays, "test", self.ignore_index)
        in_shape, test_shape = list(train.inputs.shape[1:]), list(test.inputs.shape[1:])
        if test_shape != in_shape:
            raise DataError(f"test inputs have the shape {test_shape}; allowed: {in_shape}, as in train")
        # Counted on all training labels, before any class is excluded: val and test still have that class.
        self._num_classes = count_classes(train.targets, self._num_classes, ignore_index=self.ignore_index)
        check_labels(test.targets, self._num_classes, "test", ignore_index=self.ignore_index)
        rows, val_rows, targets = self.plan.divide(train.targets, self._num_classes, self.seed)
        check_any_label(train.targets[val_rows], "val")
        check_any_label(test.targets, "test")
        # Now rather than in a worker process, whose errors are harder to read.
        self.augment.check_shape(tuple(in_shape))
        return DataSplits(TensorSplit(train.inputs[rows], targets), train.select(val_rows), test)

    def train_batches(self) -> BatchDataset:
        """Return the training batches, augmented with ``augment`` if it is set."""
        if not self.augment.is_random:  # saves a call for each batch
            return super().train_batches()
        return AugmentedBatches(self.splits.train, self.augment, self.seed)

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape`` (tuple, without the batch) and ``num_classes``."""
        return {"in_shape": tuple(self.splits.train.inputs.shape[1:]), "num_classes": self._num_classes}

    @property
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch."""
        return self.augment.is_random

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        n_labelled = int((self.splits.train.targets != IGNORE).sum())
        return {**super().summary(), "n_labelled": n_labelled, "num_classes": self.sizes["num_classes"]}
