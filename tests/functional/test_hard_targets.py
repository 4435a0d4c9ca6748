"""The cross-entropy with labels against an independent reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from kdzoo.functional import hard_target_ce
from tests.functional.accuracy import relative_error
from tests.functional.logit_cases import INF, normal, pairs, some
from tests.reference import logits as reference


class TestHardTargetCE:
    @given(pairs(least_classes=2), st.data())
    @some
    def test_any_logits_are_accurate(self, pair, data) -> None:
        logits = pair[1]
        labels = torch.tensor(
            [data.draw(st.sampled_from(row.isfinite().nonzero().flatten().tolist())) for row in logits]
        )
        student = logits.clone().requires_grad_()
        values = hard_target_ce(student, labels)
        values.sum().backward()
        assert student.grad.isfinite().all()
        for value, row, label in zip(values.tolist(), logits.numpy(), labels.tolist(), strict=True):
            assert relative_error(value, reference.hard_target_ce(row, label)) < 1e-10

    def test_agrees_with_torch(self) -> None:
        logits, target = normal(6, 5), torch.arange(6) % 5
        torch.testing.assert_close(hard_target_ce(logits, target), cross_entropy(logits, target, reduction="none"))

    def test_stays_above_zero_when_all_but_certain(self) -> None:
        value = hard_target_ce(torch.tensor([[600.0, 0.0, 0.0]]), torch.tensor([0])).item()
        assert value == pytest.approx(2 * math.exp(-600), rel=1e-12, abs=0)

    def test_masked_classes(self) -> None:
        logits = torch.tensor([[0.0, -INF], [0.0, -INF]], requires_grad=True)
        value = hard_target_ce(logits, torch.tensor([0, 1]))
        assert value.tolist() == [0, INF]
        value[0].backward()
        assert logits.grad.tolist() == [[0, 0], [0, 0]]

    def test_a_single_class_costs_nothing(self) -> None:
        logits = torch.ones(2, 1, requires_grad=True)
        value = hard_target_ce(logits, torch.zeros(2, dtype=torch.int64))
        value.sum().backward()
        assert value.tolist() == [0, 0]
        assert logits.grad.tolist() == [[0], [0]]

    def test_nan_passes_through(self) -> None:
        assert hard_target_ce(torch.tensor([[math.nan, 0.0]]), torch.tensor([1])).isnan().all()
