"""Sums over edges against dense arrays of all pairs of points."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.functional import Edges
from kdzoo.functional.fgw.graph import Graph, both_directions, with_unit_mass
from kdzoo.functional.fgw.plan import SoftPlan
from tests.functional.fgw.cases import Case, S

some = settings(max_examples=60, deadline=None, derandomize=True)


@given(st.integers(0, 2**32 - 1))
@some
def test_gains_are_linear_and_self_adjoint(seed: int) -> None:
    case = Case(seed, "l2")
    B = both_directions(torch.from_numpy(case.D))
    soft, hard = case.graph.neighbour_gains(case.soft, B), case.graph.neighbour_gains(case.hard, B)
    assert case.hard.inner(soft) == pytest.approx(case.soft.inner(hard), rel=1e-12)
    mixture = case.soft.towards(case.hard, 0.3)
    torch.testing.assert_close(case.graph.neighbour_gains(mixture, B), 0.7 * soft + 0.3 * hard, rtol=1e-12, atol=1e-15)
    dense = case.graph.neighbour_gains(SoftPlan(case.p, case.hard.dense()), B)  # the soft branch on a hard plan
    torch.testing.assert_close(dense, hard, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_gains_are_sums_over_successors_and_predecessors(kind: str) -> None:
    case = Case(4, "l2")
    T = case.plans[kind].dense().numpy()
    expected = np.einsum("aij,akl,jl->ik", case.d, case.D, T) + np.einsum("aji,alk,jl->ik", case.d, case.D, T)
    gains = case.graph.neighbour_gains(case.plans[kind], both_directions(torch.from_numpy(case.D)))
    if kind == "soft":
        np.testing.assert_allclose(gains, expected, rtol=1e-12)
    else:
        np.testing.assert_allclose(gains, expected, rtol=1e-12, atol=1e-18)


def test_joint_masses_are_sums_over_all_pairs() -> None:
    case = Case(2, "l2")
    for plan in (case.soft, case.hard):
        T = plan.dense().numpy()
        expected = np.einsum("aij,ik,jl->akl", case.d, T, T)
        np.testing.assert_allclose(case.graph.joint_mass(plan), expected, rtol=1e-12, atol=1e-18)
    scaled = Graph(with_unit_mass(case.edges, case.p), case.p, S)
    assert float(scaled.joint_mass(case.soft).sum()) == pytest.approx(1, abs=1e-14)


def test_equal_edges_count_as_one_of_their_total_weight() -> None:
    index, p = torch.tensor([0, 1, 1, 0]), torch.full((2,), 0.5, dtype=torch.float64)
    graph = Graph(Edges(index, 1 - index, torch.tensor([1, 0, 0, 1]), torch.tensor([1.0, 2.0, 4.0, 8.0])), p, 2)
    assert graph.token.tolist() == [0, 1]
    assert (graph.source.tolist(), graph.target.tolist()) == ([1, 0], [0, 1])
    assert graph.weight.tolist() == [6, 9]


def test_the_mass_of_edges_without_weights_is_scaled_to_one() -> None:
    edges = Edges(torch.tensor([0, 1, 0]), torch.tensor([1, 2, 1]), torch.tensor([0, 0, 1]))
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    weight = with_unit_mass(edges, p).weight
    torch.testing.assert_close(weight, torch.full((3,), 1 / (0.125 + 0.0625 + 0.125), dtype=torch.float64))
