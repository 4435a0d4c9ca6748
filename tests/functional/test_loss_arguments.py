"""Validation of the arguments of losses: what passes, and the whole message of what does not."""

import math
import re

import pytest
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.functional.loss_arguments import (
    check_classes,
    check_floating,
    check_labels,
    check_same_batch,
    check_same_shape,
    check_temperature,
)


def refused(message: str):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("temperature", [1, 4.0, 1e-100, 1e100])
def test_positive_temperatures_pass(temperature) -> None:
    check_temperature(temperature)
    assert 0 < float(temperature) ** 2 < math.inf


@pytest.mark.parametrize("temperature", [0, -1.0, 1e-101, 1e101, math.nan, math.inf, True, "4", None])
def test_other_temperatures_are_refused(temperature) -> None:
    with refused(f"temperature must be a finite number > 0 (1e-100 to 1e100), got {temperature!r}"):
        check_temperature(temperature)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_passes(dtype) -> None:
    check_floating("student", torch.zeros(2, dtype=dtype))
    check_same_shape(torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_dtypes_are_refused(dtype) -> None:
    with refused(f"hint must hold floating-point numbers, got {dtype}"):
        check_floating("hint", torch.zeros(2, dtype=dtype))
    with refused(f"teacher must hold floating-point numbers, got {dtype}"):
        check_same_shape(torch.zeros(2), torch.zeros(2, dtype=dtype))


def test_unequal_shapes_are_refused() -> None:
    with refused("student and teacher must have the same shape, got student (2, 3) and teacher (2, 4)"):
        check_same_shape(torch.zeros(2, 3), torch.zeros(2, 4))
    with refused("student and teacher must have the same batch size, got student (2, 3) and teacher (1, 4)"):
        check_same_batch(torch.zeros(2, 3), torch.zeros(1, 4))
    check_same_batch(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(("shape", "least"), [((), 1), ((5, 0), 1), ((5, 1), 2)])
def test_too_few_classes_are_refused(shape, least: int) -> None:
    with refused(f"student must have shape (*n, c) with c >= {least}, got {shape}"):
        check_classes(torch.zeros(shape), least=least)
    check_classes(torch.zeros(*shape[:-1], least), least=least)


def test_labels_within_the_classes_pass() -> None:
    check_labels(torch.tensor([[0, 2], [1, 1]]), torch.zeros(2, 2, 3))
    check_labels(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0.0, 1.0]), "target must hold int64 class labels, got torch.float32"),
        (
            torch.tensor([0]),
            "target must have the shape of student without its classes (2,), got target (1,) and student (2, 3)",
        ),
        (torch.tensor([0, 3]), "target must be in [0, 2], got label 3 at index [1]"),
        (torch.tensor([IGNORE, 0]), "target must be in [0, 2], got label -100 at index [0]"),
    ],
)
def test_other_labels_are_refused(target, message: str) -> None:
    with refused(message):
        check_labels(target, torch.zeros(2, 3))
