"""The barycenter: k-means at alpha = 1, a monotone objective, one alpha for all sizes, several teachers, errors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional import Barycenter, BarycenterSettings, Edges, fgw_barycenter
from kdzoo.functional.fgw.transition_cost import LOSSES
from tests.functional.fgw.cases import RING, ring
from tests.reference import fgw as reference

some = settings(max_examples=25, deadline=None, derandomize=True)


def barycenter(points, edges, n_clusters, *, init="random", mass=None, weights=None, **options) -> Barycenter:
    """Call `fgw_barycenter` with the other options as its settings."""
    return fgw_barycenter(
        points, edges, n_clusters, BarycenterSettings(**options), init=init, mass=mass, weights=weights
    )


def agreement(labels: Tensor, expected: Tensor) -> float:
    return float(adjusted_rand_score(labels.numpy(), expected.numpy()))


def never_rises(result: Barycenter) -> bool:
    return all(after <= before + 1e-12 for before, after in pairwise(result.objective))


@pytest.mark.parametrize("seed", range(3))
def test_alpha_one_is_lloyd_from_the_same_plan(seed: int) -> None:
    x, edges, states = ring(300, seed)
    g = torch.Generator().manual_seed(seed)
    mass = torch.rand(300, generator=g, dtype=torch.float64) + 0.1
    wrong = torch.rand(300, generator=g) < 0.7
    labels = torch.where(wrong, torch.randint(RING, (300,), generator=g), states)
    result = barycenter(x, edges, RING, alpha=1, init=labels, mass=mass, tol=0)
    expected = reference.lloyd(x.numpy(), labels.numpy(), RING, mass.numpy())
    np.testing.assert_array_equal(result.labels, expected)
    assert result.converged
    p = mass / mass.sum()
    inertia = (p * (x - result.centroids[0][result.labels]).square().sum(1)).sum()
    total = (p * (x - p @ x).square().sum(1)).sum()
    assert result.objective[-1] == pytest.approx(float(inertia / total), rel=1e-12)


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
    result = barycenter(x, edges, RING, alpha=alpha, loss=loss, init=start, seed=seed, determinism=2.0)
    assert never_rises(result)
    assert len(result.objective) >= 2
    torch.testing.assert_close(result.plan.sum(1), torch.full((80,), 1 / 80, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(result.masses, result.plan.sum(0), rtol=1e-12, atol=1e-15)
    assert float(result.joint.sum()) == pytest.approx(1, abs=1e-12)
    pairs = torch.outer(result.masses, result.masses)
    torch.testing.assert_close(result.transitions * pairs, result.joint, rtol=1e-12, atol=1e-15)
    means = (result.plan.T @ x) / result.masses[:, None]
    means = torch.where(result.masses[:, None] > 0, means, x.mean(0))  # "sparse" may leave a cluster empty
    torch.testing.assert_close(result.centroids[0], means, rtol=1e-9, atol=1e-12)


def test_transitions_find_states_that_points_alone_do_not() -> None:
    x, edges, states = ring(2000)
    alone = barycenter(x, edges, RING, alpha=1, init="kmeans")
    assert agreement(alone.labels, states) < 0.85
    for loss in LOSSES:
        result = barycenter(x, edges, RING, alpha=0.5, loss=loss, init="kmeans")
        assert agreement(result.labels, states) > 0.95


@pytest.mark.parametrize(("loss", "power"), [("kl", 1), ("l2", 2)])
def test_one_alpha_means_the_same_for_every_number_of_points(loss: str, power: int) -> None:
    """Unscaled, the term of the transitions shrinks with the mass of the transitions, or with its square.

    An unscaled alpha corresponds to the scaled one whose odds are multiplied by that power of the mass.
    """

    def labels(n: int, alpha: float) -> Tensor:
        x, edges, _ = ring(n)
        return barycenter(x, edges, RING, alpha=alpha, loss=loss, init="kmeans").labels[:1000]

    small, large, alpha = 1000, 20000, 0.8
    assert agreement(labels(small, alpha), labels(large, alpha)) >= 0.95
    unscaled = 1 / (1 + (1 / alpha - 1) * (small / large) ** power)  # what is 0.8 for the small sample without it
    assert agreement(labels(small, alpha), labels(large, unscaled)) < 0.9


@pytest.mark.parametrize("loss", ["kl", "l2"])
def test_units_and_weights_do_not_matter(loss: str) -> None:
    x, edges, _ = ring(400)
    heavy = edges._replace(weight=torch.full((399,), 7.0))
    halves = Edges(*(torch.cat([part, part]) for part in edges[:3]))
    same = [barycenter(1000 * x + 5, heavy, RING, alpha=0.4, loss=loss, init="kmeans")]
    same.append(barycenter(x, halves, RING, alpha=0.4, loss=loss, init="kmeans"))
    same.append(barycenter(x, edges, RING, alpha=0.4, loss=loss, init="kmeans", mass=torch.full((400,), 3.0)))
    result = barycenter(x, edges, RING, alpha=0.4, loss=loss, init="kmeans")
    for other in same:
        assert torch.equal(other.labels, result.labels)
        assert other.objective == pytest.approx(result.objective, rel=1e-9)


def test_a_point_of_double_mass_is_two_points() -> None:
    x, edges, _ = ring(60)
    extra = Edges(*(torch.cat([part, more]) for part, more in zip(edges[:3], _copy_of_last(edges), strict=True)))
    twice = barycenter(torch.cat([x, x[-1:]]), extra, 3, alpha=0.5, init=torch.arange(61).clamp_max(59) % 3)
    mass = torch.ones(60).index_fill(0, torch.tensor([59]), 2.0)
    once = barycenter(x, edges, 3, alpha=0.5, init=torch.arange(60) % 3, mass=mass)
    assert torch.equal(twice.labels[:60], once.labels)
    assert twice.objective == pytest.approx(once.objective, rel=1e-12)


def _copy_of_last(edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    """The edge into point 59 once more, into its copy, point 60."""
    return edges.source[-1:], torch.tensor([60]), edges.token[-1:]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("loss", ["kl", "l2"])
def test_empty_clusters_come_back(loss: str, alpha: float) -> None:
    x, edges, _ = ring(600, noise=0.05)
    result = barycenter(x, edges, RING, alpha=alpha, loss=loss, init=torch.zeros(600, dtype=torch.int64))
    assert (result.masses > 0).all()
    assert never_rises(result)
    if alpha == 1:
        assert result.objective[-1] < 0.1  # of the variance


def test_more_clusters_than_distinct_points_leave_some_empty() -> None:
    x, edges, _ = ring(40)
    result = barycenter(torch.zeros_like(x), edges, 3, alpha=1, init="kmeans")
    assert result.masses.count_nonzero() == 1
    assert result.objective[-1] == 0


def test_several_teachers_share_their_clusters() -> None:
    x, edges, states = ring(800, marked=True)
    y, more, others = ring(500, seed=1, marked=True)
    turned = torch.cat([y.flip(1), 0.1 * y[:, :1]], 1) * 10  # a space of its own
    result = barycenter([x, turned], [edges, more], RING, alpha=0.5, init="kmeans", n_init=3, weights=[2, 1])
    assert never_rises(result)
    assert [c.shape for c in result.centroids] == [(RING, 2), (RING, 3)]
    assert agreement(result.labels, torch.cat([states, others])) > 0.9  # one labelling for both
    alone = barycenter(x, edges, RING, alpha=0.5, init="kmeans", n_init=3)
    twice = barycenter([x, x], [edges, edges], RING, alpha=0.5, init=[alone.labels, alone.labels])
    assert torch.equal(twice.labels, torch.cat([alone.labels, alone.labels]))
    assert twice.objective[-1] == pytest.approx(alone.objective[-1], rel=1e-12)


def test_more_starts_never_do_worse_and_seeds_repeat() -> None:
    x, edges, _ = ring(300)
    runs = [barycenter(x, edges, RING, alpha=0.9, seed=seed) for seed in range(4)]
    best = barycenter(x, edges, RING, alpha=0.9, n_init=4)
    assert best.objective[-1] == min(run.objective[-1] for run in runs)
    assert len({run.objective[-1] for run in runs}) > 1
    assert torch.equal(barycenter(x, edges, RING, alpha=0.9, seed=2).plan, runs[2].plan)


def test_determinism_makes_successors_certain() -> None:
    x, edges, _ = ring(1500, noise=0.6)

    def doubt(weight: float) -> float:
        W = barycenter(x, edges, RING, alpha=0.05, loss="sparse", determinism=weight, init="kmeans").joint
        return float(-(W * (W / W.sum(2, keepdim=True)).log().nan_to_num(neginf=0)).sum())

    assert doubt(5.0) < 0.9 * doubt(0.0)


def test_no_array_is_larger_than_points_times_clusters() -> None:
    n, clusters = 20000, 4
    x, edges, _ = ring(n)
    with torch.profiler.profile(profile_memory=True) as profile:
        barycenter(x, edges, clusters, alpha=0.5, max_iter=2, init=torch.full((n, clusters), 1 / n / clusters))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 8 * n * clusters * 8  # an operation may make several; one N x N array takes 3.2 GB


def test_single_precision() -> None:
    x, edges, _ = ring(500)
    single = barycenter(x.float(), edges, RING, alpha=0.5, init="kmeans")
    assert single.plan.dtype == single.centroids[0].dtype == torch.float32
    assert agreement(single.labels, barycenter(x, edges, RING, alpha=0.5, init="kmeans").labels) > 0.98


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a finite number in [0, 1], got 1.5"),
        ({"alpha": -0.1}, "alpha must be a finite number in [0, 1], got -0.1"),
        ({"loss": "l1"}, "loss must be one of kl, l2, sparse, got 'l1'"),
        ({"smoothing": 1.0}, "smoothing must be in [0, 1), got 1.0"),
        ({"determinism": -1}, "determinism must be a finite number >= 0, got -1"),
        ({"tol": float("nan")}, "tol must be a finite number >= 0, got nan"),
        ({"n_init": 0}, "n_init must be an integer >= 1, got 0"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
        ({"inner_steps": 0.5}, "inner_steps must be an integer >= 1, got 0.5"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BarycenterSettings(**{"alpha": 0.5, **changes})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("n_clusters", "init", "message"),
    [
        (11, "random", "n_clusters must be an integer in 1..10, got 11"),
        (2, "best", "init must be one of random, kmeans, got 'best'"),
    ],
)
def test_wrong_arguments_are_refused(n_clusters: int, init: str, message: str) -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError) as caught:
        barycenter(x, edges, n_clusters, alpha=0.5, init=init)
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("scale", "offset"), [(1e-30, 0), (1e-25, 3), (1e18, 0), (1e30, 0), (1, 1e3), (1e20, 1e2)])
@pytest.mark.parametrize("init", ["kmeans", "random"])
def test_scale_and_offset_of_the_points_have_no_effect(
    scale: float, offset: float, dtype: torch.dtype, init: str
) -> None:
    x, edges, _ = ring(120)
    options = {"alpha": 0.5, "max_iter": 5}
    expected = barycenter(x, edges, RING, init=init, **options)
    result = barycenter(((x + offset) * scale).to(dtype), edges, RING, init=init, **options)
    torch.testing.assert_close(torch.tensor(result.objective), torch.tensor(expected.objective), rtol=1e-2, atol=1e-4)
    assert agreement(result.labels, expected.labels) > 0.99
    centroids = result.centroids[0].double() / scale - offset
    torch.testing.assert_close(centroids, expected.centroids[0], rtol=1e-2, atol=1e-2)


def test_an_offset_of_many_spreads_has_no_effect_in_float64() -> None:
    x, edges, _ = ring(120)
    expected, result = (barycenter(x + offset, edges, RING, init="kmeans", alpha=0.5) for offset in (0, 1e8))
    torch.testing.assert_close(torch.tensor(result.objective), torch.tensor(expected.objective), rtol=1e-5, atol=0)
