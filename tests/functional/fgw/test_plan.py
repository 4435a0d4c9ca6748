"""A hard plan has the sums of the same plan as a dense array."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.functional.fgw.plan import HardPlan, SoftPlan

some = settings(max_examples=40, deadline=None, derandomize=True)


def plans(seed: int, n: int = 7, clusters: int = 4) -> tuple[HardPlan, SoftPlan]:
    """Return a random hard plan, and the same as a soft plan."""
    g = np.random.default_rng(seed)
    p = torch.from_numpy(g.dirichlet(np.ones(n)))
    hard = HardPlan(p, clusters, torch.from_numpy(g.integers(0, clusters, n)))
    return hard, SoftPlan(p, hard.dense())


@given(st.integers(0, 2**32 - 1))
@some
def test_both_kinds_have_the_same_sums(seed: int) -> None:
    hard, soft = plans(seed)
    g = torch.Generator().manual_seed(seed % 2**31)
    points, costs = (torch.randn(7, d, generator=g, dtype=torch.float64) for d in (3, 4))
    T = np.zeros((7, 4))
    T[np.arange(7), hard.labels] = hard.p
    np.testing.assert_array_equal(hard.dense(), T)
    for plan in (hard, soft):
        assert plan.clusters == 4
        np.testing.assert_allclose(plan.masses(), T.sum(0), rtol=1e-14)
        np.testing.assert_allclose(plan.sums(points), T.T @ points.numpy(), rtol=1e-12, atol=1e-15)
        assert plan.inner(costs) == pytest.approx(float((T * costs.numpy()).sum()), rel=1e-12, abs=1e-15)
        assert [plan.members(k).tolist() for k in range(4)] == [np.flatnonzero(T[:, k]).tolist() for k in range(4)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 1.0]))
@some
def test_a_step_towards_a_vertex_mixes_the_plans(seed: int, step: float) -> None:
    vertex, _ = plans(seed + 1)
    for plan in plans(seed):
        start = plan.dense()
        mixture = plan.towards(HardPlan(plan.p, 4, vertex.labels), step)
        expected = (1 - step) * start + step * HardPlan(plan.p, 4, vertex.labels).dense()
        torch.testing.assert_close(mixture.dense(), expected, rtol=1e-14, atol=0)
        assert isinstance(mixture, HardPlan if step == 1 else SoftPlan)
        assert torch.equal(plan.dense(), start)  # the plan itself is not changed


def test_points_move_from_one_cluster_to_another() -> None:
    p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    hard = HardPlan(p, 3, torch.tensor([0, 0, 1])).moved(torch.tensor([1]), 0, 2)
    assert hard.labels.tolist() == [0, 2, 1]
    shares = torch.tensor([[0.1, 0.1, 0.0], [0.2, 0.0, 0.1], [0.0, 0.5, 0.0]], dtype=torch.float64)
    soft = SoftPlan(p, shares).moved(torch.tensor([1, 2]), 0, 2)
    torch.testing.assert_close(soft.dense(), shares.new_tensor([[0.1, 0.1, 0.0], [0.0, 0.0, 0.3], [0.0, 0.5, 0.0]]))
    assert float(shares[1, 0]) == pytest.approx(0.2)  # the plan itself is not changed
