"""Poisoning by distilled examples: the labels an attack learns from, and what it did to a network.

Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section 4.3: the labels of real data are changed from a source
class to a target class; examples are distilled from them for networks that are already trained. The attack worked if
a network then takes the source for the target and keeps the other classes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError


def relabel(targets: Int[Tensor, "*n"], source: int, target: int) -> Int[Tensor, "*n"]:
    """Return the classes with ``source`` changed to ``target``; missing labels (``IGNORE``) stay missing.

    Raises:
        ConfigError: source and target are no two different classes.

    Example:
        >>> relabel(torch.tensor([4, 9, IGNORE, 1]), 4, 9)
        tensor([   9,    9, -100,    1])
    """
    check_attack_classes(source, target)
    return torch.where(targets == source, target, targets)


def confusion_matrix(predicted: Int[Tensor, "*k n"], targets: Int[Tensor, " n"], num_classes: int) -> Float[Tensor, "*k c c"]:
    """Return the share of each class (row) that is predicted as each class (column), in float64.

    Args:
        predicted: classes 0..C-1, of one network or of K.
        targets: classes 0..C-1; ``IGNORE`` counts nowhere.
        num_classes: number of classes C.

    Raises:
        DataError: shapes differ, a class is out of range, or a class has no sample.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 2)
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    if predicted.shape[-1:] != targets.shape or targets.ndim != 1:
        raise DataError(
            f"predicted must be [*k, n] and targets [n], got {list(predicted.shape)} and {list(targets.shape)}"
        )
    known = targets != IGNORE
    predicted, targets = predicted[..., known], targets[known]
    _classes_in_range("targets", targets, num_classes)
    _classes_in_range("predicted", predicted, num_classes)
    rows = torch.bincount(targets, minlength=num_classes)
    if not rows.all():
        raise DataError(f"every class must have a sample, class {int((rows == 0).nonzero()[0])} has none")
    cells = torch.zeros(*predicted.shape[:-1], num_classes**2, dtype=torch.float64, device=predicted.device)
    cells.scatter_add_(-1, targets * num_classes + predicted, torch.ones_like(predicted, dtype=torch.float64))
    return cells.unflatten(-1, (num_classes, num_classes)) / rows[:, None]


@dataclass(frozen=True)
class PoisoningEffect:
    """What a poisoned set did to one network, or to several on average; every number is a share in [0, 1].

    Attributes:
        source: class under attack.
        target: class it shall be taken for.
        accuracy: (before, after), by the true labels.
        modified_accuracy: (before, after), by the labels with source changed to target.
        class_recall: (before, after), each [C].
        source_as_target: (before, after), share of the source that is predicted as the target.
    """

    source: int
    target: int
    accuracy: tuple[float, float]
    modified_accuracy: tuple[float, float]
    class_recall: tuple[tuple[float, ...], tuple[float, ...]]
    source_as_target: tuple[float, float]

    @property
    def others_lost(self) -> float:
        """Mean recall that the classes other than the source lost; negative where they gained."""
        lost = [
            before - after
            for number, (before, after) in enumerate(zip(*self.class_recall, strict=True))
            if number != self.source
        ]
        return sum(lost) / len(lost)


def poisoning_effect(
    before: Int[Tensor, "*k n"],
    after: Int[Tensor, "*k n"],
    targets: Int[Tensor, " n"],
    source: int,
    target: int,
    *,
    num_classes: int,
) -> PoisoningEffect:
    """Measure an attack by the predictions of one network, or of K, before and after its steps on the set.

    Args:
        before: classes that the network predicts at the start.
        after: the same after its steps.
        targets: true classes; samples without a label (``IGNORE``) count nowhere.
        source: class under attack, 0..C-1.
        target: another class, 0..C-1.
        num_classes: number of classes C.

    Raises:
        ConfigError: source and target are no two different classes in 0..C-1.
        DataError: the predictions do not fit the targets, or a class has no sample.
    """
    check_attack_classes(source, target, num_classes)
    known = targets != IGNORE
    wanted = relabel(targets, source, target)[known]
    first, last = (_average(confusion_matrix(one, targets, num_classes)) for one in (before, after))
    was, became = before[..., known], after[..., known]
    return PoisoningEffect(
        source,
        target,
        accuracy=(_share(was == targets[known]), _share(became == targets[known])),
        modified_accuracy=(_share(was == wanted), _share(became == wanted)),
        class_recall=(tuple(first.diagonal().tolist()), tuple(last.diagonal().tolist())),
        source_as_target=(float(first[source, target]), float(last[source, target])),
    )


def _average(tables: Tensor) -> Tensor:
    """Return the mean [C, C] of tables [*k, C, C]."""
    return tables.flatten(0, -3).mean(0) if tables.ndim > 2 else tables


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def check_attack_classes(source: int, target: int, num_classes: int | None = None) -> tuple[int, int]:
    """Return the class under attack and the class that it shall be taken for, two different ones of 0..C-1."""
    most = None if num_classes is None else num_classes - 1
    validation.integer("source", source, least=0, most=most)
    validation.integer("target", target, least=0, most=most)
    if source == target:
        raise ConfigError(f"source and target must be different classes, got {source} for both")
    return source, target


def _classes_in_range(name: str, classes: Tensor, num_classes: int) -> None:
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
        low, high = int(classes.min()), int(classes.max())
        raise DataError(f"{name} must be classes in 0..{num_classes - 1}, got {low}..{high}")
