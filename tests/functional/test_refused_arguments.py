"""Arguments of losses on logits that are refused, with their messages."""

import math
from functools import partial

import pytest
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.functional import centred_mse, decoupled_kl, hard_target_ce, soft_target_kl
from tests.functional.logit_cases import INF, both_parts, tkd


@pytest.mark.usefixtures("unchecked_types")
class TestBadArguments:
    @pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, INF, -INF, 1e101, 1e-101, "4", None, True])
    @pytest.mark.parametrize("decoupled", [False, True])
    def test_temperature(self, temperature, decoupled: bool) -> None:
        logits, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
        loss = partial(decoupled_kl, target=target) if decoupled else soft_target_kl
        with pytest.raises(ValueError, match=r"temperature must be a finite number > 0 .* got"):
            loss(logits, logits, temperature=temperature)

    @pytest.mark.parametrize("loss", [tkd, centred_mse, lambda s, t: both_parts(s, t, torch.zeros(2).long())])
    def test_shapes_never_broadcast(self, loss) -> None:
        with pytest.raises(ValueError, match=r"same shape, got student \(2, 3\) and teacher \(1, 3\)"):
            loss(torch.zeros(2, 3), torch.zeros(1, 3))

    @pytest.mark.parametrize("loss", [tkd, centred_mse])
    def test_no_class(self, loss) -> None:
        for shape in [(), (2, 0)]:
            with pytest.raises(ValueError, match=r"shape \(\*n, c\) with c >= 1, got \("):
                loss(torch.zeros(shape), torch.zeros(shape))

    def test_decoupling_needs_two_classes(self) -> None:
        with pytest.raises(ValueError, match=r"c >= 2, got \(2, 1\)"):
            both_parts(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2).long())

    @pytest.mark.parametrize("loss", [tkd, centred_mse])
    def test_integers(self, loss) -> None:
        with pytest.raises(ValueError, match=r"student must hold floating-point numbers, got torch\.int64"):
            loss(torch.zeros(2, 3).long(), torch.zeros(2, 3))
        with pytest.raises(ValueError, match=r"teacher must hold floating-point numbers, got torch\.int64"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3).long())

    @pytest.mark.parametrize("loss", [hard_target_ce, lambda s, y: both_parts(s, s, y)])
    def test_labels(self, loss) -> None:
        logits = torch.zeros(2, 2, 3)
        with pytest.raises(ValueError, match=r"target must be in \[0, 2\], got label 3 at index \[1, 0\]"):
            loss(logits, torch.tensor([[0, 2], [3, 1]]))
        with pytest.raises(ValueError, match=r"got label -100 at index \[0, 1\]"):
            loss(logits, torch.tensor([[0, IGNORE], [2, 1]]))
        with pytest.raises(ValueError, match=r"int64 class labels, got torch\.float32"):
            loss(logits, torch.zeros(2, 2))
        with pytest.raises(ValueError, match=r"classes \(2, 2\), got target \(2,\) and student \(2, 2, 3\)"):
            loss(logits, torch.tensor([0, 1]))

    def test_hard_targets_want_floating_logits_with_classes(self) -> None:
        with pytest.raises(ValueError, match="student must hold floating-point"):
            hard_target_ce(torch.zeros(2, 3).long(), torch.zeros(2).long())
        with pytest.raises(ValueError, match=r"got \(2, 0\)"):
            hard_target_ce(torch.zeros(2, 0), torch.zeros(2).long())
