"""Initial plans: k-means++ seeds, alignment of several teachers, and plans that the caller gives."""

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from kdzoo.errors import ConfigError
from kdzoo.functional.fgw.initialization import align, from_init, initial_plan, kmeans_plus_plus
from kdzoo.functional.fgw.inputs import build_spaces
from kdzoo.functional.fgw.plan import HardPlan, SoftPlan
from kdzoo.functional.fgw.problem import Problem
from tests.functional.fgw.cases import RING, ring


def problem(points, edges, clusters: int, weights: list[float] | None = None) -> Problem:
    return Problem(build_spaces(points, edges, None, weights, 3), clusters, 0.5, "kl", determinism=1.0, smoothing=1e-3)


def test_seeds_of_separate_groups_separate_them() -> None:
    """With groups far apart, the squared distance makes a second seed in a group all but impossible."""
    centres = torch.tensor([[0.0, 0.0], [1e4, 0.0], [0.0, 1e4]], dtype=torch.float64)
    groups = torch.arange(60) % 3
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (space,) = problem(centres[groups] + noise, ring(60)[1], 3).spaces
    for seed in range(20):
        labels = kmeans_plus_plus(space, 3, torch.Generator().manual_seed(seed))
        assert adjusted_rand_score(groups, labels) == 1


def test_seeds_are_drawn_by_mass_times_squared_distance() -> None:
    x, p = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64), torch.tensor([0.5, 0.3, 0.2])
    (space,) = build_spaces(x, ring(3)[1], p, None, 3)
    split_after_first = 0
    for seed in range(600):
        labels = kmeans_plus_plus(space, 2, torch.Generator().manual_seed(seed))
        split_after_first += bool(labels[0] != labels[1])
    # Only the seeds 0 and 1 separate these two points: either may be drawn first, by mass.
    expected = 0.5 * 0.3 / (0.3 + 0.2 * 9) + 0.3 * 0.5 / (0.5 + 0.2 * 4)
    assert split_after_first / 600 == pytest.approx(expected, abs=0.05)


def test_coinciding_points_have_one_seed() -> None:
    (space,) = problem(torch.ones(9, 2, dtype=torch.float64), ring(9)[1], 4).spaces
    assert kmeans_plus_plus(space, 4, torch.Generator().manual_seed(0)).tolist() == [0] * 9


@pytest.mark.parametrize("init", ["random", "kmeans"])
def test_a_seed_repeats_its_plan(init: str) -> None:
    x, edges, _ = ring(200)
    plans = [initial_plan(problem(x, edges, RING), init, seed).labels for seed in (0, 0, 1)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])
    assert plans[0].unique().tolist() == list(range(RING))


@pytest.mark.parametrize("weights", [[1, 1], [1, 1e-6], [1e-6, 1]], ids=["equal", "first", "second"])
def test_the_transitions_align_the_clusters_of_a_second_teacher(weights: list[float]) -> None:
    """The second teacher has the same walk, in a space of its own and from other noise.

    The weights of the teachers do not matter: a teacher is aligned to the clusters of the first one alone. The model of
    the first teacher once kept that teacher's weight, so its masses did not sum to 1, the initial plan of the second
    teacher did not have its masses, and Frank-Wolfe stopped at once.
    """
    x, edges, states = ring(800, marked=True)
    y, more, others = ring(500, seed=1, marked=True)
    both = problem([x, 10 * y.flip(1)], [edges, more], RING, weights=weights)
    first, second = align(both, HardPlan(both.spaces[0].p, RING, states))
    assert torch.equal(first.dense().argmax(1), states)
    torch.testing.assert_close(second.dense().sum(1), both.spaces[1].p)
    assert float((second.dense().argmax(1) == others).double().mean()) > 0.8


def test_labels_and_plans_are_taken_as_they_are() -> None:
    x, edges, _ = ring(4)
    labels, rows = torch.tensor([0, 1, 1, 0]), torch.full((4, 2), 1 / 8)
    (hard,), (soft,) = (from_init(problem(x, edges, 2), init) for init in (labels, rows))
    assert isinstance(hard, HardPlan)
    assert torch.equal(hard.labels, labels)
    assert isinstance(soft, SoftPlan)
    assert soft.shares.dtype == torch.float64
    assert soft.shares.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (torch.tensor([2] * 10), "init must hold labels in 0..1, got 2..2"),
        (torch.ones(10, 2), "init must be a plan >= 0 whose row sums are the masses of the points"),
        (torch.tensor([[0.2, -0.1]] * 10), "init must be a plan >= 0 whose row sums are the masses of the points"),
        (torch.zeros(3, dtype=torch.int64), "init must be random, kmeans, int64 labels (10,)"),
        ([torch.zeros(10, dtype=torch.int64)] * 2, "init must be one plan per teacher, got 2 for 1"),
        (["kmeans"], "init must be random, kmeans, int64 labels (10,) or a plan (10, 2), got 'kmeans'"),
    ],
)
def test_wrong_plans_are_refused(init, message: str) -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError) as caught:
        from_init(problem(x, edges, 2), init)
    assert str(caught.value).startswith(message)
