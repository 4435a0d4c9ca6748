"""Differences of two trainings: found in any leaf of a tree and in a single bit."""

import pytest
import torch
from torch import nn

from kdzoo.contracts.compare import difference, final_state, largest_gap, weighted_loss
from kdzoo.core.batch import IGNORE, labelled_positions, labels, valid_positions
from kdzoo.distillers import LogitKD
from kdzoo.functional import hard_target_ce, soft_target_kl


def test_a_difference_of_one_bit_is_found():
    tree = {"a": [torch.zeros(3), {"seconds": 1.0, "n": 2}]}
    assert difference(tree, {"a": [torch.zeros(3), {"seconds": 9.0, "n": 2}]}) is None
    assert difference(tree, {"a": [torch.tensor([0, 0, 1e-45]), {"seconds": 1.0, "n": 2}]}).startswith("a.0 by")
    assert difference(tree, {"a": [torch.zeros(3), {"seconds": 1.0, "n": 3}]}) == "a.1.n: 2 and 3"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"b": 1}, " has other keys: ['a', 'b']"),
        ({"a": [1, 2]}, "a has 1 and 2 entries"),
        ({"a": [torch.zeros(2)]}, "a.0 has another shape or dtype"),
        ({"a": [torch.zeros(3, dtype=torch.float64)]}, "a.0 has another shape or dtype"),
    ],
)
def test_a_different_structure_is_found(other, message):
    assert difference({"a": [torch.zeros(3)]}, other) == message


def test_nan_equals_nan():
    assert difference({"a": float("nan")}, {"a": float("nan")}) is None


def test_the_final_state_is_without_the_counters_of_the_loops():
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch")
    checkpoint = {name: name for name in (*kept, "loops", "hparams_name")}
    assert final_state(checkpoint) == {name: name for name in kept}


def test_the_largest_gap():
    first = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(3), "empty": torch.empty(0)}
    second = {"weight": torch.tensor([1.5, 2.0]), "count": torch.tensor(1), "empty": torch.empty(0)}
    assert largest_gap(first, first) == 0.0
    assert largest_gap(first, second) == 2.0
    with pytest.raises(AssertionError, match=r"other keys: \['count', 'empty'\]"):
        largest_gap(first, {"weight": torch.zeros(2)})


def test_weighted_loss_is_the_sum_of_means():
    torch.manual_seed(0)
    distiller = LogitKD(nn.Linear(4, 3), nn.Linear(4, 3), temperature=2.0)
    batch = {"input": torch.randn(5, 4), "target": torch.tensor([0, IGNORE, 2, IGNORE, 1])}
    student, teacher = distiller.student(batch["input"]), distiller.teacher(batch["input"])
    soft = soft_target_kl(student[valid_positions(batch)], teacher, temperature=2.0).mean()
    hard = hard_target_ce(student[labelled_positions(batch)], labels(batch)).mean()
    loss = weighted_loss(distiller, batch).item()
    assert loss == pytest.approx((0.9 * soft + 0.1 * hard).item(), rel=1e-6)
