"""The labels of classes as users write them: which of them stand for no label, and how many classes there are.

Labels are integers from 0. A wrong convention would go unnoticed without these checks: labels from 1 make a class 0
without samples, and a 255 or -1 that stands for a missing label would become a class.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError

# Missing classes that a message lists before it says how many more there are.
_LISTED = 5


def checked_ignore_index(value: Any) -> int:
    """Return the label that stands for a missing one.

    Raises:
        ConfigError: If it is not an integer.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"ignore_index must be an integer, got {value!r}")
    return int(value)


def hide_missing(targets: Tensor, ignore_index: int) -> Tensor:
    """Return labels with ``IGNORE`` in place of ``ignore_index``.

    Example:
        >>> hide_missing(torch.tensor([0, 255, 1]), 255).tolist()
        [0, -100, 1]
    """
    return targets if ignore_index == IGNORE else torch.where(targets == ignore_index, IGNORE, targets)


def count_classes(targets: Tensor, num_classes: int | None = None, *, ignore_index: int = IGNORE) -> int:
    """Check the labels of the training data and return the number of classes.

    Args:
        targets: Labels, int64 ``[n]``; ``IGNORE`` where there is none.
        num_classes: Number of classes; None takes the largest label + 1, of a class for each label below.
        ignore_index: The value that stands for a missing label in the user's data, for messages.

    Raises:
        DataError: If all labels are missing, a label is outside of 0..num_classes-1, or, without ``num_classes``, a
            class lacks samples.
    """
    labels = targets[targets != IGNORE]
    if not len(labels):
        raise DataError(f"all {len(targets)} training labels are missing ({ignore_index}); allowed: at least one label")
    count = max(int(labels.max()) + 1, 1) if num_classes is None else num_classes
    check_labels(targets, count, "train", ignore_index=ignore_index)
    if num_classes is None:
        _check_gaps(torch.bincount(labels, minlength=count))
    return count


def check_labels(targets: Tensor, num_classes: int, name: str, *, ignore_index: int = IGNORE) -> None:
    """Check that labels lie in 0..num_classes-1 or are missing.

    Args:
        targets: Labels, int64 ``[n]``; ``IGNORE`` where there is none.
        num_classes: Number of classes.
        name: The split, for messages.
        ignore_index: The value that stands for a missing label in the user's data, for messages.

    Raises:
        DataError: If one does not; the message names the first.
    """
    invalid = (((targets < 0) & (targets != IGNORE)) | (targets >= num_classes)).nonzero()
    if len(invalid):
        label = int(targets[int(invalid[0])])
        raise DataError(
            f"{name} label {label} at index {int(invalid[0])} is out of range; allowed: 0..{num_classes - 1}, or "
            f"{ignore_index} for a missing label (data.ignore_index)"
        )


def check_any_label(targets: Tensor, name: str) -> None:
    """Check that a split has a label, unless it is empty.

    Args:
        targets: Labels, int64 ``[n]``; ``IGNORE`` where there is none.
        name: The split, for messages.

    Raises:
        DataError: If all labels are missing.
    """
    if len(targets) and not bool((targets != IGNORE).any()):
        allowed = "at least one label, or no val split" if name == "val" else "at least one label"
        raise DataError(f"the {name} split has no labels, so that nothing can be measured on it; allowed: {allowed}")


def _check_gaps(counts: Tensor) -> None:
    """Reject classes below the largest label that have no samples, with the likely reason.

    Args:
        counts: Number of samples of each class, int64 ``[classes]``; the last one has some.
    """
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if not empty:
        return
    largest = len(counts) - 1
    used = largest + 1 - len(empty)
    if empty == [0]:
        reason = f"do they begin at 1? Subtract 1, or set data.num_classes={largest + 1} if class 0 exists"
    elif empty == list(range(empty[0], largest)):  # all but the largest label are classes without a gap
        reason = (
            f"set data.ignore_index={largest} if {largest} stands for a missing label, or "
            f"data.num_classes={largest + 1} if these classes exist"
        )
    else:
        reason = f"number the {used} classes from 0, or set data.num_classes={largest + 1} if these classes exist"
    raise DataError(f"train labels reach {largest}, but no sample has the label {_listed(empty)}; {reason}")


def _listed(classes: Sequence[int]) -> str:
    """Return classes as text, a long list shortened."""
    shown = ", ".join(map(str, classes[:_LISTED]))
    return shown if len(classes) <= _LISTED else f"{shown} and {len(classes) - _LISTED} more"
