"""The accuracy suite of soft-target losses: hard cases with references of fifty digits and more."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from mpmath import mpf
from torch import Tensor

from tests.reference import logits as reference

CLASSES = (2, 3, 10, 100, 1000)
TEMPERATURES = (1e-2, 0.1, 1.0, 4.0, 20.0, 100.0, 1e3, 1e4)
SMALLEST = 1e-290  # references below this need not survive float64


class Case(NamedTuple):
    """One float32 position with the exact loss."""

    name: str
    student: np.ndarray
    teacher: np.ndarray
    temperature: float
    exact: mpf


def _pairs(classes: int, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Named (student, teacher) logits, float32."""

    def normal(scale: float) -> np.ndarray:
        return (scale * rng.standard_normal(classes)).astype(np.float32)

    def confident(scale: float, margin: float) -> np.ndarray:
        logits = normal(scale)
        logits[0] = logits.max() + np.float32(margin)
        return logits

    def masked(logits: np.ndarray, some: np.ndarray) -> np.ndarray:
        return np.where(some, np.float32(-np.inf), logits)

    some = np.arange(classes) % 2 == 1
    teacher, large = normal(3), rng.uniform(-1e4, 1e4, classes).astype(np.float32)
    gapped = large.copy()  # float32 exponents too far apart for one float64 difference
    gapped[0] = np.float32(1e-12)
    return {
        "random": (normal(3), teacher),
        "random, scale 30": (normal(30), normal(30)),
        "random, logits to 1e4": (rng.uniform(-1e4, 1e4, classes).astype(np.float32), large),
        "near-equal": (teacher + np.float32(1e-5) * normal(1), teacher),
        "near-equal and shifted": (teacher + np.float32(7) + np.float32(1e-5) * normal(1), teacher),
        "near-equal, logits to 1e4": (np.nextafter(large, np.where(some, large + 1, large - 1)), large),
        "near-equal, unlike exponents": (np.nextafter(gapped, np.float32(1)), gapped),
        "both confident": (confident(1, 60), confident(1, 50)),
        "both confident, near-equal": (confident(0, 80.00001), confident(0, 80)),
        "confident teacher": (normal(3), confident(1, 300)),
        "confident student": (confident(1, 300), normal(3)),
        "confidently opposed": (-confident(1, 1e4), confident(1, 1e4)),
        "masked in both": (masked(normal(3), some), masked(teacher, some)),
        "masked in both, near-equal": (
            masked(teacher + np.float32(1e-5) * normal(1), some),
            masked(teacher, some),
        ),
        "masked in the teacher": (normal(3), masked(teacher, some)),
        "one masked in the teacher": (normal(3), masked(teacher, np.arange(classes) == 1)),
        "one masked in the teacher, near-equal": (
            masked(teacher, np.arange(classes) == 1) + np.float32(1e-5) * normal(1),
            masked(teacher, np.arange(classes) == 1),
        ),
        "one masked in the teacher, student agrees": (
            np.where(np.arange(classes) == 1, teacher.min() - np.float32(50), teacher),
            masked(teacher, np.arange(classes) == 1),
        ),
        "masked in the student": (masked(normal(3), some), teacher),
    }


@cache
def cases(classes: int) -> tuple[Case, ...]:
    """All cases with this many classes, over all temperatures."""
    found = []
    for i, temperature in enumerate(TEMPERATURES):
        rng = np.random.default_rng([classes, i])
        for name, (student, teacher) in _pairs(classes, rng).items():
            exact = reference.soft_target_kl(student, teacher, temperature)
            found.append(Case(f"{name}, c={classes}, T={temperature:g}", student, teacher, temperature, exact))
    return tuple(found)


def relative_error(value: float, exact: mpf) -> float:
    """|value - exact| / exact; infinite for NaN, a negative value or an infinity that should not be."""
    if not value >= 0:
        return float("inf")
    if value == exact:
        return 0.0
    return float(abs(mpf(value) - exact) / max(abs(exact), mpf(SMALLEST)))


def errors(loss: Callable[[Tensor, Tensor, float], Tensor], classes: int) -> dict[str, float]:
    """The relative error of a loss, given float32 logits of shape (1, c), by the name of the case."""
    found = {}
    for case in cases(classes):
        student, teacher = (torch.from_numpy(x).unsqueeze(0) for x in (case.student, case.teacher))
        found[case.name] = relative_error(loss(student, teacher, case.temperature).item(), case.exact)
    return found
