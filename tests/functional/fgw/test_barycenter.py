"""The barycenter as a whole: k-means at alpha = 1, monotony, one alpha for all sizes, several teachers, errors."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from kdzoo.errors import ConfigError, DataError
from kdzoo.functional import Barycenter, Edges, fgw_barycenter
from kdzoo.functional.fgw.transition_cost import LOSSES
from tests.reference import fgw as reference

some = settings(max_examples=25, deadline=None, derandomize=True)
RING = 6


def ring(n: int, seed: int = 0, noise: float = 0.3, marked: bool = False) -> tuple[Tensor, Edges, Tensor]:
    """Noisy points of one long walk round a ring: token 0 moves on (2 from the first, if marked), token 1 stays."""
    g = torch.Generator().manual_seed(seed)
    stays = (torch.rand(n - 1, generator=g) < 0.15).long()
    states = torch.cat([torch.zeros(1, dtype=torch.int64), (1 - stays).cumsum(0)]) % RING
    angle = 2 * math.pi * torch.arange(RING, dtype=torch.float64) / RING
    x = torch.stack([angle.cos(), angle.sin()], 1)[states]
    i = torch.arange(n - 1)
    if marked:
        stays[(states[:-1] == 0) & (stays == 0)] = 2
    return x + noise * torch.randn(n, 2, generator=g, dtype=torch.float64), Edges(i, i + 1, stays), states


def agreement(one: Tensor, other: Tensor) -> float:
    return float(adjusted_rand_score(one.numpy(), other.numpy()))


def never_rises(found: Barycenter) -> bool:
    return all(after <= before + 1e-12 for before, after in pairwise(found.objective))


@pytest.mark.parametrize("seed", range(3))
def test_alpha_one_is_lloyd_from_the_same_plan(seed: int) -> None:
    x, edges, states = ring(300, seed)
    g = torch.Generator().manual_seed(seed)
    mass = torch.rand(300, generator=g, dtype=torch.float64) + 0.1
    wrong = torch.rand(300, generator=g) < 0.7
    labels = torch.where(wrong, torch.randint(RING, (300,), generator=g), states)
    found = fgw_barycenter(x, edges, RING, alpha=1, init=labels, mass=mass, tol=0)
    expected = reference.lloyd(x.numpy(), labels.numpy(), RING, mass.numpy())
    np.testing.assert_array_equal(found.labels, expected)
    assert found.converged
    p = mass / mass.sum()
    inertia = (p * (x - found.centroids[0][found.labels]).square().sum(1)).sum()
    total = (p * (x - p @ x).square().sum(1)).sum()
    assert found.objective[-1] == pytest.approx(float(inertia / total), rel=1e-12)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(LOSSES),
    st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    st.sampled_from(["random", "kmeans", "plan"]),
)
@some
def test_objective_never_rises_and_closed_forms_hold(seed: int, loss: str, alpha: float, init: str) -> None:
    x, edges, _ = ring(80, seed)
    rows = torch.rand(80, RING, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = rows / rows.sum(1, keepdim=True) / 80 if init == "plan" else init
    found = fgw_barycenter(x, edges, RING, alpha=alpha, loss=loss, init=start, seed=seed, determinism=2.0)
    assert never_rises(found)
    assert len(found.objective) >= 2
    torch.testing.assert_close(found.plan.sum(1), torch.full((80,), 1 / 80, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.masses, found.plan.sum(0), rtol=1e-12, atol=1e-15)
    assert float(found.joint.sum()) == pytest.approx(1, abs=1e-12)
    pairs = torch.outer(found.masses, found.masses)
    torch.testing.assert_close(found.transitions * pairs, found.joint, rtol=1e-12, atol=1e-15)
    means = (found.plan.T @ x) / found.masses[:, None]
    torch.testing.assert_close(found.centroids[0], means, rtol=1e-9, atol=1e-12)


def test_transitions_find_states_that_points_alone_do_not() -> None:
    x, edges, states = ring(2000)
    alone = fgw_barycenter(x, edges, RING, alpha=1, init="kmeans")
    assert agreement(alone.labels, states) < 0.85
    for loss in LOSSES:
        found = fgw_barycenter(x, edges, RING, alpha=0.5, loss=loss, init="kmeans")
        assert agreement(found.labels, states) > 0.95


@pytest.mark.parametrize(("loss", "power"), [("kl", 1), ("l2", 2)])
def test_one_alpha_means_the_same_for_every_number_of_points(loss: str, power: int) -> None:
    """Left unscaled, the transitions' term shrinks by the mass of the transitions, or its square.

    Its alpha is then that of the scaled objective with the odds of alpha over the mass to that power.
    """

    def labels(n: int, alpha: float) -> Tensor:
        x, edges, _ = ring(n)
        return fgw_barycenter(x, edges, RING, alpha=alpha, loss=loss, init="kmeans").labels[:1000]

    small, large, alpha = 1000, 20000, 0.8
    assert agreement(labels(small, alpha), labels(large, alpha)) >= 0.95
    unscaled = 1 / (1 + (1 / alpha - 1) * (small / large) ** power)  # what is 0.8 for the small sample without it
    assert agreement(labels(small, alpha), labels(large, unscaled)) < 0.9


@pytest.mark.parametrize("loss", ["kl", "l2"])
def test_units_and_weights_do_not_matter(loss: str) -> None:
    x, edges, _ = ring(400)
    heavy = edges._replace(weight=torch.full((399,), 7.0))
    halves = Edges(*(torch.cat([part, part]) for part in edges[:3]))
    same = [fgw_barycenter(1000 * x + 5, heavy, RING, alpha=0.4, loss=loss, init="kmeans")]
    same.append(fgw_barycenter(x, halves, RING, alpha=0.4, loss=loss, init="kmeans"))
    same.append(fgw_barycenter(x, edges, RING, alpha=0.4, loss=loss, init="kmeans", mass=torch.full((400,), 3.0)))
    found = fgw_barycenter(x, edges, RING, alpha=0.4, loss=loss, init="kmeans")
    for other in same:
        assert torch.equal(other.labels, found.labels)
        assert other.objective == pytest.approx(found.objective, rel=1e-9)


def test_a_point_of_double_mass_is_two_points() -> None:
    x, edges, _ = ring(60)
    extra = Edges(*(torch.cat([part, more]) for part, more in zip(edges[:3], _copy_of_last(edges), strict=True)))
    twice = fgw_barycenter(torch.cat([x, x[-1:]]), extra, 3, alpha=0.5, init=torch.arange(61).clamp_max(59) % 3)
    mass = torch.ones(60).index_fill(0, torch.tensor([59]), 2.0)
    once = fgw_barycenter(x, edges, 3, alpha=0.5, init=torch.arange(60) % 3, mass=mass)
    assert torch.equal(twice.labels[:60], once.labels)
    assert twice.objective == pytest.approx(once.objective, rel=1e-12)


def _copy_of_last(edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    """The edge into point 59 once more, into its copy, point 60."""
    return edges.source[-1:], torch.tensor([60]), edges.token[-1:]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("loss", ["kl", "l2"])
def test_empty_clusters_come_back(loss: str, alpha: float) -> None:
    x, edges, _ = ring(600, noise=0.05)
    found = fgw_barycenter(x, edges, RING, alpha=alpha, loss=loss, init=torch.zeros(600, dtype=torch.int64))
    assert (found.masses > 0).all()
    assert never_rises(found)
    if alpha == 1:
        assert found.objective[-1] < 0.1  # of the variance


def test_more_clusters_than_distinct_points_leave_some_empty() -> None:
    x, edges, _ = ring(40)
    found = fgw_barycenter(torch.zeros_like(x), edges, 3, alpha=1, init="kmeans")
    assert found.masses.count_nonzero() == 1
    assert found.objective[-1] == 0


def test_several_teachers_share_their_clusters() -> None:
    x, edges, states = ring(800, marked=True)
    y, more, others = ring(500, seed=1, marked=True)
    turned = torch.cat([y.flip(1), 0.1 * y[:, :1]], 1) * 10  # a space of its own
    found = fgw_barycenter([x, turned], [edges, more], RING, alpha=0.5, init="kmeans", n_init=3, weights=[2, 1])
    assert never_rises(found)
    assert [c.shape for c in found.centroids] == [(RING, 2), (RING, 3)]
    assert agreement(found.labels, torch.cat([states, others])) > 0.9  # one labelling for both
    alone = fgw_barycenter(x, edges, RING, alpha=0.5, init="kmeans", n_init=3)
    twice = fgw_barycenter([x, x], [edges, edges], RING, alpha=0.5, init=[alone.labels, alone.labels])
    assert torch.equal(twice.labels, torch.cat([alone.labels, alone.labels]))
    assert twice.objective[-1] == pytest.approx(alone.objective[-1], rel=1e-12)


def test_more_starts_never_do_worse_and_seeds_repeat() -> None:
    x, edges, _ = ring(300)
    runs = [fgw_barycenter(x, edges, RING, alpha=0.9, seed=seed) for seed in range(4)]
    best = fgw_barycenter(x, edges, RING, alpha=0.9, n_init=4)
    assert best.objective[-1] == min(run.objective[-1] for run in runs)
    assert len({run.objective[-1] for run in runs}) > 1
    assert torch.equal(fgw_barycenter(x, edges, RING, alpha=0.9, seed=2).plan, runs[2].plan)


def test_determinism_makes_successors_certain() -> None:
    x, edges, _ = ring(1500, noise=0.6)

    def doubt(weight: float) -> float:
        W = fgw_barycenter(x, edges, RING, alpha=0.05, loss="sparse", determinism=weight, init="kmeans").joint
        return float(-(W * (W / W.sum(2, keepdim=True)).log().nan_to_num(neginf=0)).sum())

    assert doubt(5.0) < 0.9 * doubt(0.0)


def test_no_array_is_larger_than_points_times_clusters() -> None:
    n, clusters = 20000, 4
    x, edges, _ = ring(n)
    with torch.profiler.profile(profile_memory=True) as profile:
        fgw_barycenter(x, edges, clusters, alpha=0.5, max_iter=2, init=torch.full((n, clusters), 1 / n / clusters))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 8 * n * clusters * 8  # an operation may make several; one N x N array takes 3.2 GB


def test_single_precision() -> None:
    x, edges, _ = ring(500)
    single = fgw_barycenter(x.float(), edges, RING, alpha=0.5, init="kmeans")
    assert single.plan.dtype == single.centroids[0].dtype == torch.float32
    assert agreement(single.labels, fgw_barycenter(x, edges, RING, alpha=0.5, init="kmeans").labels) > 0.98


GOOD = {"n_clusters": 2, "alpha": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a finite number in [0, 1], got 1.5"),
        ({"alpha": -0.1}, "alpha must be a finite number in [0, 1], got -0.1"),
        ({"n_clusters": 11}, "n_clusters must be an integer in 1..10, got 11"),
        ({"loss": "l1"}, "loss must be one of kl, l2, sparse, got 'l1'"),
        ({"init": "best"}, "init must be one of random, kmeans, got 'best'"),
        ({"smoothing": 1.0}, "smoothing must be in [0, 1), got 1.0"),
        ({"determinism": -1}, "determinism must be a finite number >= 0, got -1"),
        ({"tol": float("nan")}, "tol must be a finite number >= 0, got nan"),
        ({"n_init": 0}, "n_init must be an integer >= 1, got 0"),
        ({"weights": [1, 2]}, "weights must be 1 finite numbers > 0, one per teacher, got [1, 2]"),
        ({"init": torch.tensor([2] * 10)}, "init must hold labels in 0..1, got 2..2"),
        ({"init": torch.ones(10, 2)}, "init must be a plan >= 0 whose row sums are the masses of the points"),
        ({"init": torch.zeros(3, dtype=torch.int64)}, "init must be random, kmeans, int64 labels (10,)"),
        ({"init": [torch.zeros(10, dtype=torch.int64)] * 2}, "init must be one plan per teacher, got 2 for 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str) -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError) as caught:
        fgw_barycenter(x, edges, **{**GOOD, **changes})
    assert str(caught.value).startswith(message)


def _with(part: str, place: int, value: int) -> Edges:
    edges = ring(10)[1]
    return edges._replace(**{part: getattr(edges, part).index_fill(0, torch.tensor([place]), value)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": _with("source", 3, 10)}, "edges.source[3] must be in 0..9, got 10"),
        ({"edges": _with("target", 0, -1)}, "edges.target[0] must be in 0..9, got -1"),
        ({"edges": _with("token", 4, 2), "n_tokens": 2}, "edges.token[4] must be in 0..1, got 2"),
        ({"edges": Edges(*[torch.zeros(0, dtype=torch.int64)] * 3)}, "edges must hold at least one transition"),
        ({"edges": ring(9)[1]._replace(token=torch.zeros(8))}, "edges.token must be int64 of shape (8,), got"),
        ({"edges": ring(10)[1]._replace(weight=torch.zeros(9))}, "edges.weight[0] must be finite and > 0, got 0.0"),
        ({"edges": ring(10)[1]._replace(weight=torch.ones(8))}, "edges.weight must have shape (9,), got (8,)"),
        ({"points": torch.full((10, 2), math.nan)}, "points[0] must be finite, got NaN or an infinity"),
        ({"points": torch.zeros(10)}, "points must be a float32 or float64 tensor of shape (N, d)"),
        ({"mass": torch.zeros(10)}, "mass[0] must be finite and > 0, got 0.0"),
        ({"mass": torch.ones(9)}, "mass must have shape (10,), got (9,)"),
    ],
)
def test_wrong_data_are_refused(changes: dict[str, object], message: str, unchecked_shapes: None) -> None:
    x, edges, _ = ring(10)
    with pytest.raises(DataError) as caught:
        fgw_barycenter(**{"points": x, "edges": edges, **GOOD, **changes})
    assert str(caught.value).startswith(message)


def test_teachers_of_unequal_number_are_refused() -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError, match="of equally many teachers, got 2 points, 1 edges and 2 masses"):
        fgw_barycenter([x, x], [edges], 2, alpha=0.5)
