"""Frank-Wolfe steps against sums over all four indices and against POT."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.functional.fgw.frank_wolfe import FrankWolfe, frank_wolfe, minimize_parabola
from kdzoo.functional.fgw.graph import Graph
from kdzoo.functional.fgw.plan import HardPlan, Plan, SoftPlan
from tests.functional.fgw.cases import Case, K, S
from tests.reference import fgw as reference

losses = pytest.mark.parametrize("loss", ["l2", "kl"])
some = settings(max_examples=60, deadline=None, derandomize=True)


@losses
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("seed", range(5))
def test_objective_and_gradient_are_those_of_the_four_indices(loss: str, kind: str, seed: int) -> None:
    case = Case(seed, loss)
    plan: Plan = case.plans[kind]
    T = plan.dense().numpy()
    descent = case.descent(plan)
    assert descent.value == pytest.approx(case.objective(T), abs=1e-12)
    full = case.M + reference.gradient(case.L, T) - case.rows[:, None]
    np.testing.assert_allclose(descent.gradient, full, rtol=0, atol=1e-12)
    value = float((torch.from_numpy(case.M) * plan.dense()).sum())
    W, H = case.graph.joint_mass(plan), torch.outer(plan.masses(), plan.masses())
    assert value + case.cost.value(W, H) == pytest.approx(descent.value, abs=1e-12)


@losses
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_line_search_finds_the_lowest_point_of_the_objective(loss: str, kind: str) -> None:
    case = Case(7, loss)
    descent = case.descent(case.plans[kind])
    start, T = descent.value, descent.plan.dense()
    labels = descent.gradient.argmin(1)
    V = HardPlan(case.p, K, labels)
    a, b = descent.parabola(V.inner(descent.gradient), V.inner(descent.gradient_at(V)), V.inner(descent.costs))
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
    descent = FrankWolfe(torch.from_numpy((1 - structure) * M), case.graph, case.cost.scaled(structure), case.soft)
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


def test_single_precision_follows_double() -> None:
    case = Case(5, "kl")
    p = case.p.float()
    graph = Graph(case.edges, p, S)
    for plan in (case.soft, case.hard):
        T = plan.dense().float()
        single = HardPlan(p, K, plan.labels) if isinstance(plan, HardPlan) else SoftPlan(p, T)
        descent = FrankWolfe(torch.from_numpy(case.M).float(), graph, case.cost, single)
        assert descent.gradient.dtype == torch.float32
        assert descent.value == pytest.approx(case.descent(plan).value, rel=1e-5)


@given(st.floats(-5, 5), st.floats(-5, 5))
@some
def test_minimum_of_a_parabola_on_the_unit_interval(a: float, b: float) -> None:
    x = minimize_parabola(a, b)
    assert 0 <= x <= 1
    grid = np.linspace(0, 1, 101)
    assert a * x * x + b * x <= (a * grid**2 + b * grid).min() + 1e-12


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_function_takes_as_many_steps_as_it_is_told(steps: int) -> None:
    case = Case(3, "kl", within=2.0)
    descent = case.descent(case.soft)
    for _ in range(steps):
        assert descent.step()
    plan = frank_wolfe(torch.from_numpy(case.M), case.graph, case.cost, case.soft, steps)
    assert torch.equal(plan.dense(), descent.plan.dense())


def test_a_stationary_hard_plan_does_not_move() -> None:
    case = Case(3, "l2")
    case.M[:, 2] -= 1e3  # the cheapest cluster of every point, whatever the transitions
    plan = frank_wolfe(torch.from_numpy(case.M), case.graph, case.cost, case.soft, 500)
    assert isinstance(plan, HardPlan)
    assert (plan.labels == 2).all()
    assert not case.descent(plan).step()
