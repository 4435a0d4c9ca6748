"""The sparse sums and Frank-Wolfe steps against all four indices at once and against POT."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdzoo.functional import Edges
from kdzoo.functional.fgw.frank_wolfe import Descent, lowest_point
from kdzoo.functional.fgw.graph import Graph, both_ways, unit_mass
from kdzoo.functional.fgw.plan import HardPlan, Plan, SoftPlan
from kdzoo.functional.fgw.transition_cost import Comparison, compare
from tests.reference import fgw as reference

N, K, S = 60, 5, 3
losses = pytest.mark.parametrize("loss", ["l2", "kl"])
some = settings(max_examples=60, deadline=None, derandomize=True)


class Case:
    """Random points, edges (some of them twice) and transitions, and the same as full arrays."""

    def __init__(self, seed: int, loss: str, *, tokens: int = S, uniform: bool = False, within: float = 0.0) -> None:
        g = np.random.default_rng(seed)
        source, target = g.integers(0, N, (2, 3 * N))
        token = g.integers(0, tokens, 3 * N)
        twice = g.integers(0, 3 * N, 20)
        source, target, token = (np.concatenate([part, part[twice]]) for part in (source, target, token))
        weight = g.uniform(0.5, 2, len(source))
        p = np.full(N, 1 / N) if uniform else g.dirichlet(np.full(N, 5.0))
        self.edges = Edges(*(torch.from_numpy(part) for part in (source, target, token, weight)))
        self.p = torch.from_numpy(p)
        self.D = g.uniform(0.05, 1, (tokens, K, K)) + within * np.eye(K)  # a large diagonal spreads the mass
        self.M = g.uniform(0, 0.1, (N, K))
        self.d = reference.adjacency(source, target, token, weight, N, tokens)
        self.L = reference.losses(self.d, self.D, loss)
        self.rows = reference.point_terms(self.d, p, loss)
        self.graph = Graph(self.edges, self.p, tokens)
        self.comparison = compare(loss, torch.from_numpy(self.D), torch.ones(K, K, dtype=torch.float64))
        self.soft = SoftPlan(self.p, torch.from_numpy(p[:, None] * g.dirichlet(np.ones(K), N)))
        self.hard = HardPlan(self.p, K, torch.from_numpy(g.integers(0, K, N)))

    def descent(self, plan: Plan) -> Descent:
        return Descent(torch.from_numpy(self.M), self.graph, self.comparison, plan)

    def objective(self, T: Tensor | np.ndarray) -> float:
        """The full objective less what the edges add to it for every plan."""
        T = np.asarray(T)
        return float((self.M * T).sum()) + reference.objective(self.L, T) - float(self.rows @ self.p.numpy()) / 2


@losses
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("seed", range(5))
def test_objective_and_gradient_are_those_of_the_four_indices(loss: str, kind: str, seed: int) -> None:
    case = Case(seed, loss)
    plan: Plan = getattr(case, kind)
    T = plan.dense().numpy()
    descent = case.descent(plan)
    assert descent.value == pytest.approx(case.objective(T), abs=1e-12)
    full = case.M + reference.gradient(case.L, T) - case.rows[:, None]
    np.testing.assert_allclose(descent.gradient, full, rtol=0, atol=1e-12)
    value = float((torch.from_numpy(case.M) * plan.dense()).sum())
    W, H = case.graph.joint(plan), torch.outer(plan.masses(), plan.masses())
    assert value + case.comparison.value(W, H) == pytest.approx(descent.value, abs=1e-12)


@losses
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_line_search_sees_the_objective_and_finds_its_lowest_point(loss: str, kind: str) -> None:
    case = Case(7, loss)
    descent = case.descent(getattr(case, kind))
    start, T = descent.value, descent.plan.dense()
    labels = descent.gradient.argmin(1)
    V = HardPlan(case.p, K, labels)
    a, b = descent.parabola(V.inner(descent.gradient), V.inner(descent.slope(V)), V.inner(descent.costs))
    for x in np.linspace(0, 1, 11):
        assert start + b * x + a * x**2 == pytest.approx(case.objective(T + x * (V.dense() - T)), abs=1e-12)
    assert descent.step()
    on_the_way = [case.objective(T + x * (V.dense() - T)) for x in np.linspace(0, 1, 101)]
    assert descent.value <= min(on_the_way) + 1e-14


@losses
def test_mixed_gradients_stay_exact_over_many_steps(loss: str) -> None:
    case = Case(3, loss, within=2.0)
    descent, values = case.descent(case.soft), []
    while len(values) < 15 and descent.step():
        T = descent.plan.dense()
        values.append(descent.value)
        assert descent.value == pytest.approx(case.objective(T), abs=1e-12)
        fresh = case.M + reference.gradient(case.L, T.numpy()) - case.rows[:, None]
        np.testing.assert_allclose(descent.gradient, fresh, rtol=0, atol=1e-12)
        torch.testing.assert_close(T.sum(1), case.p, rtol=1e-14, atol=0)
    assert len(values) == 15
    assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize(("structure", "within"), [(0.2, 0.0), (0.8, 2.0), (0.999, 2.0)])
@losses
def test_every_iterate_is_that_of_pot(loss: str, structure: float, within: float) -> None:
    case = Case(11, loss, tokens=1, uniform=True, within=within)
    M, T = 10 * case.M, case.soft.dense()
    descent = Descent(torch.from_numpy((1 - structure) * M), case.graph, case.comparison.scaled(structure), case.soft)
    fractions = 0
    for steps in range(1, 31):
        pot, log = ot.gromov.semirelaxed_fused_gromov_wasserstein(
            M,
            case.d[0],
            case.D[0],
            case.p.numpy(),
            loss_fun={"l2": "square_loss", "kl": "kl_loss"}[loss],
            symmetric=False,
            alpha=structure,
            G0=T.numpy(),
            log=True,
            max_iter=steps,
            tol_rel=0,
            tol_abs=0,
        )
        descent.step()
        fractions += isinstance(descent.plan, SoftPlan)
        np.testing.assert_allclose(descent.plan.dense(), pot, rtol=0, atol=1e-10)
        constant = structure * float(case.rows @ case.p.numpy()) / 2
        assert descent.value + constant == pytest.approx(log["loss"][-1], abs=1e-10)
    assert fractions >= 20 or within == 0


@given(st.integers(0, 2**32 - 1))
@some
def test_pull_is_linear_and_self_adjoint(seed: int) -> None:
    case = Case(seed, "l2")
    B = both_ways(torch.from_numpy(case.D))
    one, other = case.graph.pulled(case.soft, B), case.graph.pulled(case.hard, B)
    assert case.hard.inner(one) == pytest.approx(case.soft.inner(other), rel=1e-12)
    mix = case.soft.towards(case.hard, 0.3)
    torch.testing.assert_close(case.graph.pulled(mix, B), 0.7 * one + 0.3 * other, rtol=1e-12, atol=1e-15)
    pulled = case.graph.pulled(SoftPlan(case.p, case.hard.dense()), B)  # the soft path on a hard plan
    torch.testing.assert_close(pulled, other, rtol=1e-12, atol=1e-15)


def test_joint_masses_are_sums_over_all_pairs() -> None:
    case = Case(2, "l2")
    for plan in (case.soft, case.hard):
        T = plan.dense().numpy()
        expected = np.einsum("aij,ik,jl->akl", case.d, T, T)
        np.testing.assert_allclose(case.graph.joint(plan), expected, rtol=1e-12, atol=1e-18)
    scaled = Graph(unit_mass(case.edges, case.p), case.p, S)
    assert float(scaled.joint(case.soft).sum()) == pytest.approx(1, abs=1e-14)


def test_single_precision_follows_double() -> None:
    case = Case(5, "kl")
    p = case.p.float()
    graph = Graph(case.edges, p, S)
    for plan in (case.soft, case.hard):
        T = plan.dense().float()
        single = HardPlan(p, K, plan.labels) if isinstance(plan, HardPlan) else SoftPlan(p, T)
        descent = Descent(torch.from_numpy(case.M).float(), graph, case.comparison, single)
        assert descent.gradient.dtype == torch.float32
        assert descent.value == pytest.approx(case.descent(plan).value, rel=1e-5)


@given(st.floats(-5, 5), st.floats(-5, 5))
@some
def test_lowest_point_of_a_parabola(a: float, b: float) -> None:
    x = lowest_point(a, b)
    assert 0 <= x <= 1
    grid = np.linspace(0, 1, 101)
    assert a * x * x + b * x <= (a * grid**2 + b * grid).min() + 1e-12


def test_comparison_scales() -> None:
    case = Case(1, "kl")
    W, H = case.graph.joint(case.soft), torch.outer(case.soft.masses(), case.soft.masses())
    scaled = case.comparison.scaled(0.25)
    assert isinstance(scaled, Comparison)
    assert scaled.value(W, H) == pytest.approx(case.comparison.value(W, H) / 4, rel=1e-14)
