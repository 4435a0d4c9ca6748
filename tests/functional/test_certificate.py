"""The certificate passes the sound loss and names what is wrong with formulas found in known libraries."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from kdzoo.functional import soft_target_kl
from tests.functional.certificate import loss_certificate


def sound(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    return soft_target_kl(student, teacher, temperature=T)


def detached(student: Tensor, teacher: Tensor, T: float) -> tuple[Tensor, Tensor]:
    return student.double() / T, teacher.detach().double() / T


def without_square(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    return sound(student, teacher, T) / T**2


def mean_over_classes(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    # what reduction="mean" does: it divides by the number of classes as well
    return sound(student, teacher, T) / student.shape[-1]


def squared_probabilities(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    s, t = detached(student, teacher, T)
    return T**2 * mse_loss(s.softmax(-1), t.softmax(-1), reduction="none").mean(-1)


def squared_logits(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    s, t = detached(student, teacher, T)
    return mse_loss(s, t, reduction="none").mean(-1)


def teacher_learns(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    p, q = (teacher / T).double().log_softmax(-1), (student / T).double().log_softmax(-1)
    return T**2 * kl_div(q, p, reduction="none", log_target=True).sum(-1)


def logarithm_of_softmax(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    p, q = (teacher.detach() / T).softmax(-1), (student / T).softmax(-1)
    return T**2 * (p * (p.log() - q.log())).sum(-1)


def mean_over_batch(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    return sound(student, teacher, T).mean()


def divided_by_batch(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    return sound(student, teacher, T) / len(student)


def test_soft_target_kl_has_the_certificate() -> None:
    assert loss_certificate(sound) == []


@pytest.mark.parametrize(
    ("faulty", "found"),
    [
        (without_square, {"steady_gradient", "high_temperature_limit"}),
        (mean_over_classes, {"high_temperature_limit"}),
        (squared_probabilities, {"steady_gradient", "high_temperature_limit"}),
        (squared_logits, {"steady_gradient", "high_temperature_limit"}),
        (teacher_learns, {"teacher_constant"}),
        (logarithm_of_softmax, {"half_precision", "never_negative"}),
        (mean_over_batch, {"per_position"}),
        (divided_by_batch, {"micro_batches", "high_temperature_limit"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_faulty_formulas_fail_by_name(faulty, found: set[str]) -> None:
    assert set(loss_certificate(faulty)) == found


def test_the_certificate_needs_no_random_state() -> None:
    before = torch.get_rng_state()
    loss_certificate(sound)
    assert torch.equal(before, torch.get_rng_state())
