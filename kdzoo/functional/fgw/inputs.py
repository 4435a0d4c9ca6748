"""Validation of the data of the barycenter: points, masses and transitions of one or several teachers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional.fgw.graph import Edges, Graph, with_unit_mass
from kdzoo.functional.fgw.problem import Space


def build_spaces(
    points: Any, edges: Any, mass: Any, weights: Sequence[float | int] | None, n_tokens: int | None
) -> list[Space]:
    """Validate the data of one teacher or of several, and prepare them for the optimization.

    Args:
        points: Points ``[N, d]``, or a sequence of such arrays, one per teacher.
        edges: Transitions between the points, or one per teacher.
        mass: Masses > 0 of the points, ``[N]``, or one array per teacher; None for equal masses.
        weights: Weights > 0 of the teachers; None for equal weights.
        n_tokens: Number of tokens S; None for the smallest number that the edges allow.

    Returns:
        One space per teacher. Masses and weights sum to 1, points are centred, transitions have mass 1.

    Raises:
        ConfigError: If the teachers' numbers of arrays, the weights or the number of tokens are not valid.
        DataError: If points, masses or edges are malformed.
    """
    several = not isinstance(points, Tensor)
    all_points = list(points) if several else [points]
    all_edges = list(edges) if several else [edges]
    masses = [None] * len(all_points) if mass is None else list(mass) if several else [mass]
    shares = _teacher_weights(weights, len(all_points))
    if n_tokens is not None:
        validation.integer("n_tokens", n_tokens)
    if not len(all_points) == len(all_edges) == len(masses):
        counts = f"{len(all_points)} points, {len(all_edges)} edges and {len(masses)} masses"
        raise ConfigError(f"points, edges and mass must be of equally many teachers, got {counts}")
    suffixes = [f"[{b}]" if several else "" for b in range(len(all_points))]
    for suffix, x, e in zip(suffixes, all_points, all_edges, strict=True):
        check_points(f"points{suffix}", x)
        check_edges(f"edges{suffix}", e, len(x), n_tokens)
    S = 1 + max(int(e.token.max()) for e in all_edges) if n_tokens is None else n_tokens
    ps = [normalized_mass(f"mass{suffix}", p, x) for suffix, p, x in zip(suffixes, masses, all_points, strict=True)]
    return [
        _space(x, Graph(with_unit_mass(e, p), p, S), p, share)
        for x, e, p, share in zip(all_points, all_edges, ps, shares, strict=True)
    ]


def check_points(name: str, x: Any) -> None:
    """Reject what is not a finite float32 or float64 array of points ``[N, d]``.

    Args:
        name: Name of the argument, for the message.
        x: The points.

    Raises:
        DataError: If the type, the shape or a value is not valid.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64) or x.ndim != 2 or len(x) == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"{name} must be a float32 or float64 tensor of shape (N, d) with N >= 1, got {got}")
    wrong = ~x.isfinite().all(1)
    if wrong.any():
        raise DataError(f"{name}[{_first(wrong)}] must be finite, got NaN or an infinity")


def check_edges(name: str, edges: Edges, n: int, n_tokens: int | None) -> None:
    """Reject edges that do not fit n points or, if it is given, the number of tokens.

    Args:
        name: Name of the argument, for the message.
        edges: The transitions.
        n: Number of points.
        n_tokens: Number of tokens, or None for as many as occur.

    Raises:
        DataError: If a field has another shape or dtype than ``Edges`` requires, an index or token is out of range, a
            weight is not positive, or there is no edge.
    """
    shape = edges.source.shape
    if len(shape) != 1 or shape[0] == 0:
        raise DataError(f"{name} must hold at least one transition in flat tensors, got source of shape {tuple(shape)}")
    any_token = torch.iinfo(torch.int64).max
    fields = (("source", edges.source, n), ("target", edges.target, n), ("token", edges.token, n_tokens or any_token))
    for field, value, limit in fields:
        if value.dtype != torch.int64 or value.shape != shape:
            got = f"{value.dtype} of shape {tuple(value.shape)}"
            raise DataError(f"{name}.{field} must be int64 of shape {tuple(shape)}, got {got}")
        wrong = (value < 0) | (value >= limit)
        if wrong.any():
            i = _first(wrong)
            raise DataError(f"{name}.{field}[{i}] must be in 0..{limit - 1}, got {int(value[i])}")
    if edges.weight is not None:
        if edges.weight.shape != shape:
            raise DataError(f"{name}.weight must have shape {tuple(shape)}, got {tuple(edges.weight.shape)}")
        _check_positive(f"{name}.weight", edges.weight)


def normalized_mass(name: str, mass: Tensor | None, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return the masses of the points, scaled to sum to 1, in the dtype of the points; equal masses for None.

    Args:
        name: Name of the argument, for the message.
        mass: Masses > 0, ``[N]``, or None.
        x: The points.

    Raises:
        DataError: If the shape or a value is not valid.
    """
    p = torch.ones(len(x), dtype=torch.float64, device=x.device) if mass is None else mass.double()
    if p.shape != x.shape[:1]:
        raise DataError(f"{name} must have shape {tuple(x.shape[:1])}, got {tuple(p.shape)}")
    _check_positive(name, p)
    return (p / p.sum()).to(x)


def _teacher_weights(weights: Sequence[float | int] | None, teachers: int) -> list[float]:
    """Return the weights of the teachers, scaled to sum to 1."""
    values = [1.0] * teachers if weights is None else [float(weight) for weight in weights]
    if len(values) != teachers or not values or not all(0 < weight < float("inf") for weight in values):
        raise ConfigError(f"weights must be {max(teachers, 1)} finite numbers > 0, one per teacher, got {weights!r}")
    return [weight / sum(values) for weight in values]


def _check_positive(name: str, values: Tensor) -> None:
    """Reject values that are not all finite and positive."""
    wrong = ~(values.isfinite() & (values > 0))
    if wrong.any():
        i = _first(wrong)
        raise DataError(f"{name}[{i}] must be finite and > 0, got {float(values[i])}")


def _first(mask: Tensor) -> int:
    """Return the index of the first true element."""
    return int(mask.nonzero()[0])


def _space(x: Tensor, graph: Graph, p: Tensor, weight: float) -> Space:
    """Centre the points, scale them and measure their variance."""
    # Centred points keep the digits of |x|^2 - 2 x'c + |c|^2 also where the points lie far from the origin.
    mean = (p.double() @ x.detach().double()).to(x)
    x = x.detach() - mean
    # Squares of very large or small values would be infinite or 0. Division by a power of 2 rounds nothing.
    scale = math.ldexp(1.0, math.frexp(float(x.abs().max()))[1])
    x = x / scale
    square = x.square().sum(1)
    variance = float(torch.dot(square.double(), p.double()))
    # If all points coincide, every distance is 0 and its unit does not matter.
    return Space(x, mean, scale, square, variance or 1.0, p, graph, weight)
