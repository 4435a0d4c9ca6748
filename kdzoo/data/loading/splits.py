"""From two arrays to a train, a val and a test split: pure functions on rows and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE
from kdzoo.core.randomness import permutation
from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError, DataError

# The val and train rows never depend on the run's seed: only such numbers can be compared between seeds.
_SPLIT_KEY = 1_202_611
_LABEL_KEY = 1_202_612


class Split(NamedTuple):
    """Inputs, float32 [n, ...], and targets, int64 [n]."""

    inputs: Tensor
    targets: Tensor


class Splits(NamedTuple):
    """The three splits; val may have no rows."""

    train: Split
    val: Split
    test: Split
    num_classes: int


@dataclass(frozen=True)
class SplitPlan:
    """How to divide the data; see :class:`kdzoo.data.memory.InMemoryData` for the meaning of each field."""

    val_size: float | int
    train_size: int | None
    exclude_classes: tuple[int, ...]
    labels_per_class: int | None
    num_classes: int | None

    def __post_init__(self) -> None:
        if isinstance(self.val_size, float):
            if not 0 <= self.val_size < 1:
                raise ConfigError(f"val_size={self.val_size} is not allowed; allowed: a fraction in [0, 1) or a count")
        else:
            integer("val_size", self.val_size, 0)
        for name in ("train_size", "labels_per_class", "num_classes"):
            if (value := getattr(self, name)) is not None:
                integer(name, value, 1)

    def divide(self, train: Split, test: Split, seed: int) -> Splits:
        """Return the splits; val, train_size, exclude_classes, labels_per_class act in this order.

        Raises:
            ConfigError: the plan asks for more than there is.
            DataError: a label is out of range, or test inputs have another shape.
        """
        check_shapes(train, test)
        num_classes = count_classes(train.targets, self.num_classes)
        check_labels(test.targets, num_classes, "test")
        rows, val_rows = split_rows(len(train.targets), self.val_size)
        rows = take_rows(rows, self.train_size)
        rows = drop_classes(rows, train.targets, self.exclude_classes, num_classes)
        targets = keep_labels(train.targets[rows], self.labels_per_class, seed)
        val = Split(train.inputs[val_rows], train.targets[val_rows])
        return Splits(Split(train.inputs[rows], targets), val, test, num_classes)


def count_classes(targets: Tensor, num_classes: int | None) -> int:
    """Return the number of classes, the largest label + 1 unless given, after a check of all labels.

    Raises:
        DataError: a label is negative or not below ``num_classes``.
    """
    found = int(targets.max()) + 1 if num_classes is None else num_classes
    check_labels(targets, found, "train")
    return found


def check_shapes(train: Split, test: Split) -> None:
    """Check that train and test inputs have one shape.

    Raises:
        DataError: they differ.
    """
    expected, found = list(train.inputs.shape[1:]), list(test.inputs.shape[1:])
    if found != expected:
        raise DataError(f"test inputs have the shape {found}; allowed: {expected}, as in train")


def check_labels(targets: Tensor, num_classes: int, name: str) -> None:
    """Check that labels lie in 0..num_classes-1.

    Raises:
        DataError: one does not; the first is named.
    """
    wrong = ((targets < 0) | (targets >= num_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{name} label {int(targets[row])} at index {row} is out of range; allowed: 0..{num_classes - 1}"
        )


def split_rows(n: int, val_size: float | int) -> tuple[Tensor, Tensor]:
    """Return the rows of train (in a fixed random order) and of val (ascending), together 0..n-1.

    Raises:
        ConfigError: no row would be left to train on.
    """
    count = max(1, round(val_size * n)) if isinstance(val_size, float) and val_size else int(val_size)
    if count >= n:
        raise ConfigError(f"val_size={val_size} takes {count} of {n} samples; allowed: at most {n - 1}")
    order = permutation(n, _SPLIT_KEY)
    return order[count:], order[:count].sort().values


def take_rows(rows: Tensor, train_size: int | None) -> Tensor:
    """Return the first ``train_size`` rows (all when None), ascending; smaller sets lie within larger ones.

    Raises:
        ConfigError: there are not so many.
    """
    if train_size is not None and train_size > len(rows):
        raise ConfigError(
            f"train_size={train_size} is more than the {len(rows)} training samples; allowed: 1..{len(rows)}"
        )
    return rows[:train_size].sort().values


def drop_classes(rows: Tensor, targets: Tensor, classes: Sequence[int], num_classes: int) -> Tensor:
    """Return the rows whose label is not one of ``classes``.

    Raises:
        ConfigError: a class does not exist, or no row would be left.
    """
    for label in classes:
        integer("exclude_classes", label, 0, num_classes - 1)
    kept = rows[~torch.isin(targets[rows], torch.tensor(classes, dtype=torch.long))]
    if not len(kept):
        raise ConfigError(f"exclude_classes={list(classes)} leaves no training sample; allowed: fewer classes")
    return kept


def keep_labels(targets: Tensor, per_class: int | None, seed: int) -> Tensor:
    """Return the targets with ``per_class`` random labels of each class (all when None) and IGNORE elsewhere.

    Raises:
        ConfigError: a class that occurs has fewer.
    """
    if per_class is None:
        return targets
    order = permutation(len(targets), _LABEL_KEY, seed)
    kept = torch.full_like(targets, IGNORE)
    for label in targets.unique().tolist():
        rows = order[targets[order] == label]
        if len(rows) < per_class:
            raise ConfigError(
                f"labels_per_class={per_class} is more than the {len(rows)} training samples "
                f"of class {label}; allowed: 1..{len(rows)}"
            )
        kept[rows[:per_class]] = label
    return kept


def plain_classes(classes: Any) -> tuple[int, ...]:
    """Return ``exclude_classes`` as a tuple.

    Raises:
        ConfigError: it is not a sequence.
    """
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        raise ConfigError(f"exclude_classes={classes!r} is not allowed; allowed: a list of classes")
    return tuple(classes)
