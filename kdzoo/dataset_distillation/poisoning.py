"""Poisoning by distilled examples: the labels that an attack is learned from, and the measures of its effect.

Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section 4.3: the labels of real data are changed from a source
class to a target class, and examples are distilled from them for networks that are already trained. The attack is
successful if a network trained on the examples predicts the target for the source and keeps its accuracy on the other
classes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError


def relabel(targets: Int[Tensor, "*n"], source: int, target: int) -> Int[Tensor, "*n"]:
    """Return a copy of the classes with ``source`` changed to ``target``; missing labels (``IGNORE``) stay missing.

    Args:
        targets: Classes of any shape.
        source: Class to change, >= 0.
        target: Class to change it to, >= 0.

    Raises:
        ConfigError: A class is negative, or source and target are the same.

    Example:
        >>> relabel(torch.tensor([4, 9, IGNORE, 1]), 4, 9)
        tensor([   9,    9, -100,    1])
    """
    check_attack_classes(source, target)
    return torch.where(targets == source, target, targets)  # IGNORE is negative and never equals the source


def confusion_matrix(
    predicted: Int[Tensor, "*k n"], targets: Int[Tensor, " n"], num_classes: int
) -> Float[Tensor, "*k c c"]:
    """Return the share of each class (row) that is predicted as each class (column), in float64.

    Args:
        predicted: Predicted classes in 0..C-1, ``[n]`` of one network or ``[K, n]`` of K.
        targets: True classes ``[n]`` in 0..C-1; samples with ``IGNORE`` are left out.
        num_classes: Number of classes C.

    Returns:
        Matrices ``[C, C]`` or ``[K, C, C]`` whose rows sum to 1.

    Raises:
        DataError: Shapes differ, a class is out of range, or a class has no sample.

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
    counts = torch.bincount(targets, minlength=num_classes)
    # Without a sample the row of a class is 0 / 0, and a check of the set would silently not see this class.
    if not counts.all():
        raise DataError(f"every class must have a sample, class {int((counts == 0).nonzero()[0])} has none")
    # One pass for all networks, in float64, where counts are exact: the pair (true, predicted) is one index into the
    # flattened matrix.
    cells = torch.zeros(*predicted.shape[:-1], num_classes**2, dtype=torch.float64, device=predicted.device)
    cells.scatter_add_(-1, targets * num_classes + predicted, torch.ones_like(predicted, dtype=torch.float64))
    return cells.unflatten(-1, (num_classes, num_classes)) / counts[:, None]


@dataclass(frozen=True)
class PoisoningEffect:
    """The effect of a poisoned set on one network, or the mean over several; every number is a share in [0, 1].

    Attributes:
        source: Class under attack.
        target: Class that the attack makes networks predict for it.
        accuracy: Accuracy (before, after) with respect to the true labels.
        modified_accuracy: Accuracy (before, after) with respect to the labels with source changed to target.
        class_recall: Recall of each of the C classes (before, after).
        source_as_target: Share of the source that is predicted as the target (before, after).
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
            for class_index, (before, after) in enumerate(zip(*self.class_recall, strict=True))
            if class_index != self.source
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
    """Measure an attack by the predictions of one network, or of K, before and after their training on the set.

    Args:
        before: Classes predicted before the training, ``[n]`` or ``[K, n]``.
        after: Classes predicted after it, of the same shape.
        targets: True classes ``[n]``; samples without a label (``IGNORE``) are left out.
        source: Class under attack, in 0..C-1.
        target: Class that the attack makes networks predict for it, another one in 0..C-1.
        num_classes: Number of classes C.

    Raises:
        ConfigError: Source and target are not two different classes in 0..C-1.
        DataError: The predictions do not fit the targets, or a class has no sample.
    """
    check_attack_classes(source, target, num_classes)
    known = targets != IGNORE
    true, modified = targets[known], relabel(targets, source, target)[known]
    matrix_before, matrix_after = (_mean_matrix(confusion_matrix(c, targets, num_classes)) for c in (before, after))
    known_before, known_after = before[..., known], after[..., known]
    return PoisoningEffect(
        source,
        target,
        accuracy=(_share(known_before == true), _share(known_after == true)),
        modified_accuracy=(_share(known_before == modified), _share(known_after == modified)),
        class_recall=(tuple(matrix_before.diagonal().tolist()), tuple(matrix_after.diagonal().tolist())),
        source_as_target=(float(matrix_before[source, target]), float(matrix_after[source, target])),
    )


def _mean_matrix(matrices: Tensor) -> Tensor:
    """Return the mean ``[C, C]`` of matrices ``[*k, C, C]``."""
    return matrices.flatten(0, -3).mean(0) if matrices.ndim > 2 else matrices


def _share(is_correct: Tensor) -> float:
    return float(is_correct.double().mean())


def check_attack_classes(source: int, target: int, num_classes: int | None = None) -> tuple[int, int]:
    """Return source and target after a check that they are two different classes.

    Args:
        source: Class under attack, in 0..C-1.
        target: Class that the attack makes networks predict for it, in 0..C-1.
        num_classes: Number of classes C; None leaves the upper end open, where C is not known.

    Raises:
        ConfigError: A class is out of its range, or both are the same.
    """
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
