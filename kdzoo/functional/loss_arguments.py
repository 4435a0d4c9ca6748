"""The checks that every pure function shares: each names the argument, what it got and what is allowed."""

import torch
from torch import Tensor

LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 1e-100, 1e100  # the square of either is still a float64


def check_temperature(temperature: float | int) -> None:
    """Refuse a temperature that is no number, not positive, or whose square float64 cannot hold.

    Args:
        temperature: The temperature that the caller was given.

    Raises:
        ValueError: If the temperature is not a number in [1e-100, 1e100].
    """
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not LEAST_TEMPERATURE <= temperature <= GREATEST_TEMPERATURE:
        raise ValueError(f"temperature must be a finite number > 0 (1e-100 to 1e100), got {temperature!r}")


def check_floating(name: str, value: Tensor) -> None:
    """Refuse a tensor that does not hold floating-point numbers.

    Args:
        name: The argument's name, for the message.
        value: The argument, any shape.

    Raises:
        ValueError: If the dtype is not a floating-point one.
    """
    if not value.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {value.dtype}")


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse a student and teacher that differ in shape or hold no floating-point numbers.

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


def check_classes(student: Tensor, *, least: int = 1) -> None:
    """Refuse logits without a class dimension or with too few classes.

    Args:
        student: Logits of shape (*n, c).
        least: The smallest allowed number of classes c.

    Raises:
        ValueError: If the logits have no dimension or fewer than `least` classes.
    """
    if student.ndim < 1 or student.shape[-1] < least:
        raise ValueError(f"student must have shape (*n, c) with c >= {least}, got {tuple(student.shape)}")


def check_labels(target: Tensor, logits: Tensor) -> None:
    """Refuse class labels of the wrong dtype or shape, or outside the classes.

    Args:
        target: Labels, one for each position of the logits.
        logits: Logits of shape (*n, c).

    Raises:
        ValueError: If the dtype is not int64, the shape is not (*n,) or a label is not in [0, c).
    """
    classes = logits.shape[-1]
    if target.dtype != torch.int64:
        raise ValueError(f"target must hold int64 class labels, got {target.dtype}")
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target must have the shape of student without its classes {tuple(logits.shape[:-1])}, "
            f"got target {tuple(target.shape)} and student {tuple(logits.shape)}"
        )
    if target.numel() == 0:
        return
    least, greatest = target.aminmax()
    if least < 0 or greatest >= classes:
        where = ((target < 0) | (target >= classes)).nonzero()[0].tolist()
        label = target[tuple(where)].item()
        raise ValueError(f"target must be in [0, {classes - 1}], got label {label} at index {where}")
