"""Data of the barycenter: what is prepared, and what is refused with which message."""

import math

import pytest
import torch

from kdzoo.errors import ConfigError, DataError
from kdzoo.functional import Edges
from kdzoo.functional.fgw.inputs import build_spaces, check_edges, check_points, normalized_mass
from tests.functional.fgw.cases import ring


def test_points_are_centred_and_masses_and_weights_sum_to_one() -> None:
    x, edges, _ = ring(50)
    mass = torch.linspace(1, 3, 50)
    first, second = build_spaces([x + 7, x.float()], [edges, edges], [mass, None], [3, 1], None)
    assert (first.weight, second.weight) == (0.75, 0.25)
    torch.testing.assert_close(first.p, mass.double() / mass.double().sum())
    assert second.p.tolist() == pytest.approx([1 / 50] * 50)
    torch.testing.assert_close(first.mean, first.p @ (x + 7))
    torch.testing.assert_close(first.x * first.scale, x + 7 - first.mean)
    assert 0.5 <= float(first.x.abs().max()) < 1
    assert first.variance == pytest.approx(float(first.p @ first.x.square().sum(1)))
    assert (first.x.dtype, second.x.dtype) == (torch.float64, torch.float32)
    assert float(first.graph.mass.sum()) == pytest.approx(1)
    assert first.graph.n_tokens == 2  # as many as the edges show


def test_coinciding_points_have_a_unit() -> None:
    (space,) = build_spaces(torch.ones(10, 2), ring(10)[1], None, None, None)
    assert space.variance == 1


@pytest.mark.parametrize("weights", [[1, 2], [0.0], [math.inf], []])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError) as caught:
        build_spaces(x, edges, None, weights, None)
    assert str(caught.value) == f"weights must be 1 finite numbers > 0, one per teacher, got {weights}"


def test_teachers_of_unequal_number_are_refused() -> None:
    x, edges, _ = ring(10)
    with pytest.raises(ConfigError, match="of equally many teachers, got 2 points, 1 edges and 2 masses"):
        build_spaces([x, x], [edges], None, None, None)
    with pytest.raises(ConfigError, match="n_tokens must be an integer >= 1, got 0"):
        build_spaces(x, edges, None, None, 0)


def test_the_teacher_is_named() -> None:
    x, edges, _ = ring(10)
    with pytest.raises(DataError, match=r"^points\[1\]\[0\] must be finite"):
        build_spaces([x, x * math.nan], [edges, edges], None, None, None)


def replaced(field: str, index: int, value: int) -> Edges:
    """Return the edges of a ring of ten points with one entry replaced."""
    edges = ring(10)[1]
    return edges._replace(**{field: edges._asdict()[field].index_fill(0, torch.tensor([index]), value)})


@pytest.mark.parametrize(
    ("edges", "n_tokens", "message"),
    [
        (replaced("source", 3, 10), None, "edges.source[3] must be in 0..9, got 10"),
        (replaced("target", 0, -1), None, "edges.target[0] must be in 0..9, got -1"),
        (replaced("token", 4, 2), 2, "edges.token[4] must be in 0..1, got 2"),
        (Edges(*[torch.zeros(0, dtype=torch.int64)] * 3), None, "edges must hold at least one transition"),
        (ring(9)[1]._replace(token=torch.zeros(8)), None, "edges.token must be int64 of shape (8,), got"),
        (ring(10)[1]._replace(weight=torch.zeros(9)), None, "edges.weight[0] must be finite and > 0, got 0.0"),
        (ring(10)[1]._replace(weight=torch.ones(8)), None, "edges.weight must have shape (9,), got (8,)"),
    ],
)
def test_wrong_edges_are_refused(edges: Edges, n_tokens: int | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_edges("edges", edges, 10, n_tokens)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.full((10, 2), math.nan), "points[0] must be finite, got NaN or an infinity"),
        (torch.zeros(10), "points must be a float32 or float64 tensor of shape (N, d) with N >= 1, got torch.float32"),
        (torch.zeros(0, 2), "points must be a float32 or float64 tensor of shape (N, d) with N >= 1, got"),
        (torch.zeros(3, 2).half(), "points must be a float32 or float64 tensor of shape (N, d) with N >= 1, got"),
        ([[1.0]], "points must be a float32 or float64 tensor of shape (N, d) with N >= 1, got list"),
    ],
)
def test_wrong_points_are_refused(points, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_points("points", points)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("mass", "message"),
    [
        (torch.zeros(10), "mass[0] must be finite and > 0, got 0.0"),
        (torch.ones(9), "mass must have shape (10,), got (9,)"),
    ],
)
def test_wrong_masses_are_refused(mass: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError) as caught:
        normalized_mass("mass", mass, torch.zeros(10, 2))
    assert str(caught.value) == message
