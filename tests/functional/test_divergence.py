"""The arithmetic of divergences on a device without float64, and without the shorter path that a CPU may take."""

import math

import pytest
import torch
from hypothesis import given
from mpmath import mpf

from kdzoo.contracts.accelerator import simulated_accelerator
from kdzoo.functional import (
    angle_relation,
    attention_transfer,
    centred_mse,
    decoupled_kl,
    distance_relation,
    hard_target_ce,
    hint_mse,
    most_likely,
    soft_target_kl,
    top_k_kl,
)
from tests.functional import accuracy
from tests.functional.devices import without_float64
from tests.functional.logit_cases import LOSSES, normal, pairs, some, temperatures, tkd
from tests.reference import logits as reference

ALLOWED = 1e-6  # the promise; measured: 4e-7
SMALLEST = mpf("1e-30")  # references below this need not survive float32


@pytest.mark.parametrize("classes", accuracy.CLASSES)
def test_float32_is_accurate_in_every_case(classes, monkeypatch):
    monkeypatch.setattr(accuracy, "SMALLEST", SMALLEST)

    def loss(student, teacher, temperature):
        with without_float64():
            return tkd(student, teacher, temperature)

    found = accuracy.errors(loss, classes)
    assert {name: error for name, error in found.items() if not error < ALLOWED} == {}


@given(pairs(), temperatures)
@some
def test_float32_is_accurate_for_any_logits(pair, temperature):
    student, teacher = pair
    with without_float64():
        values = tkd(student, teacher, temperature)
    for value, s, t in zip(values.tolist(), student.numpy(), teacher.numpy(), strict=True):
        exact = reference.soft_target_kl(s, t, temperature)
        assert value >= 0
        assert abs(value - exact) <= ALLOWED * max(exact, SMALLEST)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("noise", [1e-5, 0.1, 5.0])
def test_the_other_losses_are_accurate_in_float32(classes, temperature, noise):
    teacher = normal(4, classes, dtype=torch.float32)
    student = teacher + normal(4, classes, scale=noise, seed=1, dtype=torch.float32)
    target = torch.arange(4) % classes
    with without_float64():
        decoupled = decoupled_kl(student, teacher, target, temperature=temperature)
        hard, squares = hard_target_ce(student, target), centred_mse(student, teacher)
    for i, (s, t) in enumerate(zip(student.numpy(), teacher.numpy(), strict=True)):
        label = int(target[i])
        pairs_ = [
            *zip((float(part[i]) for part in decoupled), reference.decoupled_kl(s, t, label, temperature), strict=True),
            (float(hard[i]), reference.hard_target_ce(s, label)),
            (float(squares[i]), reference.centred_mse(s, t)),
        ]
        for value, exact in pairs_:
            assert value >= 0
            assert abs(value - exact) <= ALLOWED * max(exact, SMALLEST)


def test_labels_that_are_all_but_certain_in_float32():
    logits = torch.tensor([[50.0, -30.0, -30.5, -40.0], [1e4, 9.93e3, 0.0, -1e4], [-1e4, 0.0, 1e4, 1.0]])
    with without_float64():
        values = hard_target_ce(logits, torch.tensor([0, 0, 0]))
    for value, row in zip(values.tolist(), logits.numpy(), strict=True):
        exact = reference.hard_target_ce(row, 0)
        assert abs(value - exact) <= ALLOWED * max(exact, SMALLEST)


def test_gradients_in_float32():
    student, teacher, target = (normal(6, 9, seed=i, dtype=torch.float32) for i in (0, 1, 2))
    target = target.argmax(-1)
    for loss in LOSSES.values():
        gradients = []
        for context in (without_float64, torch.enable_grad):
            leaf = student.clone().requires_grad_()
            with context():
                loss(leaf, teacher, target).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_special_values_in_float32():
    inf = math.inf
    student = torch.tensor([[-inf, 0.0], [math.nan, 0.0], [inf, 0.0], [-inf, -inf], [1.0, -inf]])
    teacher = torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, -inf]])
    with without_float64():
        values = tkd(student, teacher, 1.0)
    assert values[0] == inf
    assert values[1:4].isnan().tolist() == [True, True, False]  # a student that masks everything masks it alone
    assert values[4] == 0


def test_losses_on_features_need_no_float64():
    maps = [normal(3, 4, 5, 5, seed=i, dtype=torch.float32) for i in (0, 1)]
    for loss in (hint_mse, attention_transfer, distance_relation, angle_relation):
        with without_float64():
            value = loss(*maps)
        torch.testing.assert_close(value.double(), loss(*maps), rtol=1e-5, atol=1e-6)


def test_top_k_needs_no_float64():
    teacher, student = (normal(5, 40, seed=i, dtype=torch.float32) for i in (0, 1))
    targets = most_likely(teacher, 4, temperature=2.0)
    with without_float64():
        value = top_k_kl(student, *targets, temperature=2.0)
    torch.testing.assert_close(value.double(), top_k_kl(student, *targets, temperature=2.0), rtol=1e-6, atol=0)


def _step(student, teacher, target):
    for loss in LOSSES.values():
        loss(student, teacher, target).sum().backward()
    top_k_kl(student, *most_likely(teacher, 3, temperature=2.0), temperature=2.0).sum().backward()


@pytest.mark.parametrize("has_float64", [True, False])
def test_no_loss_makes_the_host_wait_for_an_accelerator(has_float64):
    student, teacher = normal(70, 1000, dtype=torch.float32).requires_grad_(), normal(70, 1000, seed=1).float()
    target = torch.arange(70)
    if not has_float64:
        with without_float64():
            soft_target_kl(student, teacher, temperature=2.0)  # what is copied to the device once is there then
    with simulated_accelerator():
        if has_float64:
            _step(student, teacher, target)
        else:
            with without_float64():
                _step(student, teacher, target)
    assert student.grad.isfinite().all()


def test_both_paths_of_a_cpu_agree():
    student, teacher, target = normal(50, 20), normal(50, 20, seed=1), torch.arange(50) % 20
    teacher[::2] = student[::2] + 1e-6 * teacher[::2]
    for loss in LOSSES.values():
        shorter = loss(student, teacher, target)
        with simulated_accelerator():
            exact = loss(student, teacher, target)
        torch.testing.assert_close(shorter, exact, rtol=1e-8, atol=0)


def test_a_label_outside_the_classes_is_nan_on_an_accelerator():
    with simulated_accelerator():
        value = hard_target_ce(torch.zeros(3, 4), torch.tensor([0, 4, -1]))
        parts = decoupled_kl(torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor([0, 4, -1]), temperature=1.0)
    assert value.isnan().tolist() == [False, True, True]
    assert [part.isnan().tolist() for part in parts] == [[False, True, True]] * 2


def test_a_label_that_dwarfs_the_other_classes_leaves_them_their_digits():
    student, teacher = torch.tensor([[3000.0, 30.0, 28.0]]), torch.tensor([[2900.0, 0.0, 1.0]])
    _, others = decoupled_kl(student, teacher, torch.tensor([0]), temperature=4.0)  # e^-742 is subnormal in float64
    expected = reference.soft_target_kl(student[0, 1:].numpy(), teacher[0, 1:].numpy(), 4.0)
    assert float(others) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("noise", [1e-5, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 20.0, 1e4])
def test_log_odds_that_agree_by_chance_keep_their_digits_in_float32(scale, noise, temperature):
    teacher = normal(500, 100, scale=scale, dtype=torch.float32)
    student = teacher + normal(500, 100, scale=noise, seed=1, dtype=torch.float32)
    target = torch.arange(500) % 100
    exact = decoupled_kl(student, teacher, target, temperature=temperature)
    with without_float64():
        values = decoupled_kl(student, teacher, target, temperature=temperature)
    for value, wanted in zip(values, exact, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-32)
