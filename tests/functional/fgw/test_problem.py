"""Closed-form centroids and transitions minimize the objective of a plan, and empty clusters are seeded again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.functional.fgw.inputs import build_spaces
from kdzoo.functional.fgw.plan import HardPlan, SoftPlan
from kdzoo.functional.fgw.problem import Problem, closed_form, reseed_empty
from tests.functional.fgw.cases import RING, ring

some = settings(max_examples=30, deadline=None, derandomize=True)


def problem(n: int, clusters: int, alpha: float, loss: str = "l2", noise: float = 0.3, teachers: int = 1) -> Problem:
    data = [ring(n, seed, noise)[:2] for seed in range(teachers)]
    spaces = build_spaces([x for x, _ in data], [e for _, e in data], None, list(range(1, teachers + 1)), 2)
    return Problem(spaces, clusters, alpha, loss, determinism=1.0, smoothing=1e-3)


def random_plan(p: torch.Tensor, clusters: int, seed: int) -> SoftPlan:
    rows = np.random.default_rng(seed).dirichlet(np.ones(clusters), len(p))
    return SoftPlan(p, p[:, None] * torch.from_numpy(rows))


@given(st.integers(0, 2**32 - 1))
@some
def test_costs_and_centroids_are_those_of_definitions(seed: int) -> None:
    (space,) = problem(12, 3, 1.0).spaces
    plan = random_plan(space.p, 3, seed)
    T, x, h = plan.dense().numpy(), space.x.numpy(), plan.masses()
    c = space.centroids(plan, h)
    np.testing.assert_allclose(c, np.stack([np.average(x, axis=0, weights=T[:, k]) for k in range(3)]), atol=1e-12)
    distances = ((x[:, None] - c.numpy()) ** 2).sum(2) / (space.p.numpy() @ (x**2).sum(1))
    np.testing.assert_allclose(space.costs(c), distances, atol=1e-12)
    np.testing.assert_allclose(space.spread(plan, h, c), (distances * T).sum(0), atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
@some
def test_no_other_centroids_have_a_lower_spread(seed: int, moved: int) -> None:
    (space,) = problem(12, 3, 1.0).spaces
    plan = random_plan(space.p, 3, seed)
    best = closed_form(problem(12, 3, 1.0), [plan]).objective
    centroids = space.centroids(plan, plan.masses())
    assert best == pytest.approx(plan.inner(space.costs(centroids)), rel=1e-12)
    centroids[moved] += 0.1
    assert plan.inner(space.costs(centroids)) > best


def test_the_objective_of_several_teachers_is_the_mean_by_their_weights() -> None:
    both = problem(20, 3, 1.0, teachers=2)
    plans = [random_plan(space.p, 3, seed) for seed, space in enumerate(both.spaces)]
    alone = [
        float(space.spread(plan, plan.masses(), space.centroids(plan, plan.masses())).sum())
        for space, plan in zip(both.spaces, plans, strict=True)
    ]
    assert closed_form(both, plans).objective == pytest.approx((alone[0] + 2 * alone[1]) / 3, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_an_empty_cluster_gets_the_far_half_of_the_widest(alpha: float) -> None:
    full = problem(300, RING, alpha, noise=0.02)
    p = full.spaces[0].p
    plans = [HardPlan(p, RING, torch.zeros(300, dtype=torch.int64))]
    model = closed_form(full, plans)
    reseeded, after = reseed_empty(full, plans, model)
    assert (after.h > 0).all()
    assert after.objective < model.objective
    assert after.objective == pytest.approx(closed_form(full, reseeded).objective, rel=1e-12)


def test_clusters_with_points_are_left_alone() -> None:
    full = problem(60, 3, 0.5)
    plans = [HardPlan(full.spaces[0].p, 3, torch.arange(60) % 3)]
    model = closed_form(full, plans)
    assert reseed_empty(full, plans, model) == (plans, model)


def test_coinciding_points_leave_clusters_empty() -> None:
    x, edges, _ = ring(20)
    flat = Problem(build_spaces(torch.zeros_like(x), edges, None, None, 2), 2, 1.0, "l2", 1.0, 1e-3)
    plans = [HardPlan(flat.spaces[0].p, 2, torch.zeros(20, dtype=torch.int64))]
    _, after = reseed_empty(flat, plans, closed_form(flat, plans))
    assert after.h.tolist() == pytest.approx([1, 0])
    assert after.objective == 0


def test_pairs_of_clusters_have_the_mean_of_the_products_of_the_teachers() -> None:
    """Teachers 1 and 2 have the weights 1/3 and 2/3; the product of their mean masses would be another matrix."""
    both = problem(20, 3, 0.5, teachers=2)
    plans = [random_plan(space.p, 3, seed) for seed, space in enumerate(both.spaces)]
    first, second = (torch.outer(plan.masses(), plan.masses()) for plan in plans)
    torch.testing.assert_close(closed_form(both, plans).H, (first + 2 * second) / 3)
