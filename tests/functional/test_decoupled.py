"""The decoupled loss against an independent reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.functional import decoupled_kl
from tests.functional.accuracy import relative_error
from tests.functional.logit_cases import INF, both_parts, normal, pairs, some, tkd
from tests.reference import logits as reference


class TestDecoupledKL:
    @given(pairs(st.floats(-30, 30, width=32), least_classes=2), st.floats(0.5, 100), st.data())
    @some
    def test_the_parts_make_up_the_whole(self, pair, temperature, data) -> None:
        student, teacher = pair
        student, teacher = student.clamp_min(-40), teacher.clamp_min(-40)
        target = torch.tensor([data.draw(st.integers(0, student.shape[1] - 1)) for _ in student])
        tckd, nckd = decoupled_kl(student, teacher, target, temperature=temperature)
        p = (teacher.double() / temperature).softmax(-1)
        rest = p.scatter(-1, target.unsqueeze(-1), 0).sum(-1)
        whole = tkd(student, teacher, temperature)
        torch.testing.assert_close(tckd + rest * nckd, whole, rtol=1e-10, atol=1e-18)

    @pytest.mark.parametrize("classes", [2, 3, 10, 100])
    @pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0, 1e3])
    @pytest.mark.parametrize("noise", [3.0, 1e-5])
    def test_accuracy(self, classes: int, temperature: float, noise: float) -> None:
        teacher = normal(2, classes, dtype=torch.float32)
        student = teacher + normal(2, classes, scale=noise, seed=1, dtype=torch.float32)
        values = decoupled_kl(student, teacher, torch.tensor([0, 1]), temperature=temperature)
        for i in range(2):
            exact = reference.decoupled_kl(student[i].numpy(), teacher[i].numpy(), i, temperature)
            for value, wanted in zip(values, exact, strict=True):
                assert relative_error(value[i].item(), wanted) < 1e-6

    def test_masked_classes(self) -> None:
        teacher = torch.tensor([[1.0, 2.0, -INF, 0.5]])
        student = torch.tensor([[0.0, 1.0, -INF, 3.0]], requires_grad=True)
        kept, target = [0, 1, 3], torch.tensor([1])
        value = both_parts(student, teacher, target)
        torch.testing.assert_close(value, both_parts(student[:, kept], teacher[:, kept], target))
        value.sum().backward()
        assert student.grad.isfinite().all()
        assert both_parts(student, teacher.nan_to_num(neginf=0.0), target)[0, 1] == INF

    def test_a_teacher_that_masks_the_label(self) -> None:
        tckd, nckd = decoupled_kl(torch.zeros(1, 3), torch.tensor([[-INF, 0.0, 0.0]]), torch.tensor([0]), temperature=1)
        torch.testing.assert_close(tckd.item(), math.log(3 / 2))
        assert nckd.item() == 0

    def test_two_classes_leave_nothing_to_the_others(self) -> None:
        student, teacher = normal(4, 2), normal(4, 2, seed=1)
        tckd, nckd = decoupled_kl(student, teacher, torch.tensor([0, 1, 0, 1]), temperature=2.0)
        assert nckd.tolist() == [0, 0, 0, 0]
        torch.testing.assert_close(tckd, tkd(student, teacher, 2.0))

    def test_without_pressure_from_a_certain_target(self) -> None:
        # the case that makes a formula with log(1 - p_y) or a mask of -1000 overflow in half precision
        student, teacher = torch.tensor([[300.0, 0.0, 1.0]]).half(), torch.tensor([[250.0, 1.0, 0.0]]).half()
        tckd, nckd = decoupled_kl(student, teacher, torch.tensor([0]), temperature=1.0)
        assert 0 < tckd.item() < 1e-100
        assert nckd.item() == pytest.approx(0.4621171572600097)
