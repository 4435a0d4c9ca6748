"""Validation of the arguments of losses: temperatures, tensors of student and teacher, class labels.

Each function raises a ``ValueError`` that names the argument, what it is and what is allowed.
"""

import torch
from torch import Tensor

from kdzoo.core.precision import host_may_read

# The square of either bound is still a normal float64 number, and losses multiply by the squared temperature.
LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 1e-100, 1e100


def check_temperature(temperature: float | int) -> None:
    """Reject a temperature that is not a positive number whose square float64 can hold.

    Args:
        temperature: The temperature.

    Raises:
        ValueError: If the temperature is not a number in [1e-100, 1e100].
    """
    # bool is a subclass of int, but ``temperature=True`` is a mistake.
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    # NaN fails both comparisons and is rejected.
    if not is_number or not LEAST_TEMPERATURE <= temperature <= GREATEST_TEMPERATURE:
        raise ValueError(f"temperature must be a finite number > 0 (1e-100 to 1e100), got {temperature!r}")


def check_floating(name: str, value: Tensor) -> None:
    """Reject a tensor that does not hold floating-point numbers.

    Args:
        name: Name of the argument, for the message.
        value: The argument, of any shape.

    Raises:
        ValueError: If the dtype is not a floating-point one.
    """
    if not value.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {value.dtype}")


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Reject a student and teacher that differ in shape or do not hold floating-point numbers.

    Args:
        student: The student's tensor.
        teacher: The teacher's tensor; its dtype may differ from the student's.

    Raises:
        ValueError: If the shapes differ or a dtype is not a floating-point one.
    """
    check_floating("student", student)
    check_floating("teacher", teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have the same shape, "
            f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        )


def check_same_batch(student: Tensor, teacher: Tensor) -> None:
    """Reject a student and teacher that differ in the length of their first dimension.

    Args:
        student: The student's tensor, ``[batch, ...]``.
        teacher: The teacher's tensor, ``[batch, ...]``.

    Raises:
        ValueError: If the batch sizes differ.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"student and teacher must have the same batch size, "
            f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        )


def check_classes(student: Tensor, *, least: int = 1) -> None:
    """Reject logits without a class dimension or with too few classes.

    Args:
        student: Logits, ``[..., classes]``.
        least: Smallest number of classes that is allowed.

    Raises:
        ValueError: If the logits have no dimension or fewer than ``least`` classes.
    """
    if student.ndim < 1 or student.shape[-1] < least:
        raise ValueError(f"student must have shape (*n, c) with c >= {least}, got {tuple(student.shape)}")


def check_labels(target: Tensor, logits: Tensor) -> Tensor | None:
    """Reject class labels of the wrong dtype or shape, or outside of the classes.

    Args:
        target: One label for each position of the logits, ``[...]``.
        logits: Logits, ``[..., classes]``.

    Returns:
        None if all labels are known to be classes. On an accelerator, where looking at them would make the host wait:
        which labels are outside of the classes, bool ``[...]``.

    Raises:
        ValueError: If the dtype is not int64, the shape is not that of the positions, or a label on the CPU is not in
            [0, classes).
    """
    classes = logits.shape[-1]
    if target.dtype != torch.int64:
        raise ValueError(f"target must hold int64 class labels, got {target.dtype}")
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target must have the shape of student without its classes {tuple(logits.shape[:-1])}, "
            f"got target {tuple(target.shape)} and student {tuple(logits.shape)}"
        )
    if not host_may_read(target):
        return (target < 0) | (target >= classes)
    # ``aminmax`` rejects an empty tensor, and an empty batch has no wrong label.
    if target.numel() == 0:
        return None
    # One pass over the labels; the position of a wrong label is searched only if there is one.
    lowest, highest = target.aminmax()
    if lowest < 0 or highest >= classes:
        index = ((target < 0) | (target >= classes)).nonzero()[0].tolist()
        label = target[tuple(index)].item()
        raise ValueError(f"target must be in [0, {classes - 1}], got label {label} at index {index}")
    return None
