"""From labelled arrays to a train, a val and a test split: pure functions on rows and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE
from kdzoo.core.randomness import permutation
from kdzoo.core.validation import integer
from kdzoo.data.loading.shares import count_of, share
from kdzoo.errors import ConfigError

# The val and train rows never depend on the run's seed: numbers of different seeds can be compared only if they were
# measured on the same samples. The keys are arbitrary and different, so that the choice of rows and the choice of
# labels are independent; changing one would change every experiment.
_SPLIT_KEY = 1_202_611
_LABEL_KEY = 1_202_612


@dataclass(frozen=True)
class SplitPlan:
    """How to divide labelled training data; see :class:`kdzoo.data.memory.InMemoryData` for each field.

    Raises:
        ConfigError: If a field is out of range.
    """

    val_size: float | int
    train_size: int | None = None
    exclude_classes: tuple[int, ...] = ()
    labels_per_class: int | None = None

    def __post_init__(self) -> None:
        share("val_size", self.val_size)
        for name, value in (("train_size", self.train_size), ("labels_per_class", self.labels_per_class)):
            if value is not None:
                integer(name, value, 1)

    def divide(self, targets: Tensor, num_classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the train rows, the val rows and the targets of the train rows, some of which may be hidden.

        ``val_size`` acts first, then ``train_size``, ``exclude_classes`` and ``labels_per_class``.

        Args:
            targets: Labels of the training data, int64 ``[n]``.
            num_classes: Number of classes C.
            seed: Decides which labels are kept.

        Raises:
            ConfigError: If the plan asks for more than there is.
        """
        rows, val_rows = split_rows(len(targets), self.val_size)
        rows = take_rows(rows, self.train_size)
        rows = drop_classes(rows, targets, self.exclude_classes, num_classes)
        return rows, val_rows, keep_labels(targets[rows], self.labels_per_class, seed)


def split_rows(n: int, val_size: float | int) -> tuple[Tensor, Tensor]:
    """Return the rows of train (in a fixed random order) and of val (ascending), together 0..n-1.

    Args:
        n: Number of rows.
        val_size: Fraction in [0, 1) or count; a fraction above 0 takes at least one row.

    Raises:
        ConfigError: If no row would be left to train on.
    """
    count = count_of(val_size, n)
    if count >= n:
        raise ConfigError(f"val_size={val_size} takes {count} of {n} samples; allowed: at most {n - 1}")
    order = permutation(n, _SPLIT_KEY)
    # The train rows stay in random order so that take_rows can cut a random subset off their beginning.
    return order[count:], order[:count].sort().values


def take_rows(rows: Tensor, train_size: int | None) -> Tensor:
    """Return the first ``train_size`` rows (all if None), ascending; a smaller set is a subset of a larger one.

    Raises:
        ConfigError: If there are fewer rows.
    """
    if train_size is not None and train_size > len(rows):
        raise ConfigError(
            f"train_size={train_size} is more than the {len(rows)} training samples; allowed: 1..{len(rows)}"
        )
    return rows[:train_size].sort().values


def drop_classes(rows: Tensor, targets: Tensor, classes: Sequence[int], num_classes: int) -> Tensor:
    """Return the rows whose label is not one of ``classes``.

    Raises:
        ConfigError: If a class does not exist, or no row would be left.
    """
    for label in classes:
        integer("exclude_classes", label, 0, num_classes - 1)
    remaining = rows[~torch.isin(targets[rows], torch.tensor(classes, dtype=torch.long))]
    if not len(remaining):
        raise ConfigError(f"exclude_classes={list(classes)} leaves no training sample; allowed: fewer classes")
    return remaining


def keep_labels(targets: Tensor, per_class: int | None, seed: int) -> Tensor:
    """Return the targets with ``per_class`` random labels of each class (all if None) and ``IGNORE`` elsewhere.

    Labels that are missing stay so.

    Raises:
        ConfigError: If a class that occurs has fewer samples.
    """
    if per_class is None:
        return targets
    order = permutation(len(targets), _LABEL_KEY, seed)
    kept_targets = torch.full_like(targets, IGNORE)
    for label in targets[targets != IGNORE].unique().tolist():
        rows = order[targets[order] == label]
        if len(rows) < per_class:
            raise ConfigError(
                f"labels_per_class={per_class} is more than the {len(rows)} training samples "
                f"of class {label}; allowed: 1..{len(rows)}"
            )
        kept_targets[rows[:per_class]] = label
    return kept_targets


def class_tuple(classes: Any) -> tuple[int, ...]:
    """Return ``exclude_classes`` as a tuple.

    Raises:
        ConfigError: If it is not a sequence.
    """
    # OmegaConf's lists are sequences but not lists; a string is a sequence too and would be taken letter by letter.
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        raise ConfigError(f"exclude_classes={classes!r} is not allowed; allowed: a list of classes")
    return tuple(classes)
