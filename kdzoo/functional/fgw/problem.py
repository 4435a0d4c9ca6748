"""The objective of the fused Gromov-Wasserstein barycenter: its data, and what is best for given plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional.fgw.graph import Graph, check_edges, unit_mass
from kdzoo.functional.fgw.plan import Plan
from kdzoo.functional.fgw.transition_cost import Comparison, compare


@dataclass(frozen=True, eq=False)
class Space:
    """One teacher's points.

    Attributes:
        x: The points less their mean, (N, d).
        mean: Their weighted mean, (d,).
        square: Squared norms of x, (N,).
        variance: The weighted mean of `square`, or 1 where it is 0.
        p: Masses of the points, (N,), together 1.
        graph: Their transitions, of mass one.
        weight: The teacher's share of the objective.
    """

    x: Tensor
    mean: Tensor
    square: Tensor
    variance: float
    p: Tensor
    graph: Graph
    weight: float

    def costs(self, centroids: Float64[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        """Return M, the squared distances to the centroids over the total variance."""
        c = centroids.to(self.x)
        distances = torch.addmm(c.square().sum(1), self.x, c.T, alpha=-2).add_(self.square.unsqueeze(1))
        return distances.div_(self.variance)

    def centroids(self, plan: Plan, h: Float64[Tensor, " k"]) -> Float64[Tensor, "k d"]:
        """Return the weighted means of the clusters; for one without mass, the mean of all points."""
        return plan.sums(self.x) / torch.where(h > 0, h, 1.0).unsqueeze(1)

    def spread(self, plan: Plan, h: Float64[Tensor, " k"], c: Float64[Tensor, "k d"]) -> Float64[Tensor, " k"]:
        """Return every cluster's part of <M, T> for centroids that are its means."""
        return (plan.sums(self.square.unsqueeze(1)).squeeze(1) - h * c.square().sum(1)) / self.variance


@dataclass(frozen=True, eq=False)
class Problem:
    """The teachers and the settings of the objective; `fgw_barycenter` says what they mean."""

    spaces: Sequence[Space]
    clusters: int
    alpha: float
    loss: str
    determinism: float
    smoothing: float


@dataclass(frozen=True, eq=False)
class Model:
    """The best centroids and transitions for given plans.

    Attributes:
        centroids: Means of the clusters in every teacher's centred space, float64 (K, d_b).
        h: Masses of the clusters over all teachers, float64 (K,).
        H: Products of the masses within a teacher, over all teachers, float64 (K, K).
        W: Joint masses of the transitions over all teachers, float64 (S, K, K).
        spread: Every cluster's part of the points' term, float64 (K,).
        comparison: The transitions' term, with its factor 1 - alpha.
        objective: The objective of the plans with these centroids and transitions.
    """

    centroids: Sequence[Tensor]
    h: Tensor
    H: Tensor
    W: Tensor
    spread: Tensor
    comparison: Comparison
    objective: float


def fit(problem: Problem, plans: Sequence[Plan]) -> Model:
    """Return the centroids and transitions that are best for the plans."""
    spaces, masses = problem.spaces, [plan.masses() for plan in plans]
    centroids = [s.centroids(T, h) for s, T, h in zip(spaces, plans, masses, strict=True)]
    spreads = [s.spread(T, h, c) for s, T, h, c in zip(spaces, plans, masses, centroids, strict=True)]
    h, spread = _mixed(spaces, masses), _mixed(spaces, spreads)
    H = _mixed(spaces, [torch.outer(h, h) for h in masses])
    W = _mixed(spaces, [s.graph.joint(T) for s, T in zip(spaces, plans, strict=True)])
    comparison = compare(problem.loss, W, H, smoothing=problem.smoothing, determinism=problem.determinism)
    comparison = comparison.scaled(1 - problem.alpha)
    objective = problem.alpha * float(spread.sum()) + comparison.value(W, H)
    return Model(centroids, h, H, W, spread, comparison, objective)


def revive(problem: Problem, plans: list[Plan], model: Model) -> tuple[list[Plan], Model]:
    """Give every empty cluster the far half of the widest one, where this does not raise the objective.

    A finer partition has no higher best value under the losses "l2" and "kl"; under "sparse" it may have.
    """
    speck = min(float(s.weight * s.p.min()) for s in problem.spaces) / 2  # what mixing leaves in an empty cluster
    for empty in (model.h < speck).nonzero().flatten().tolist():
        widest = int(model.spread.argmax())
        halved = [
            _halved(s, plan, widest, empty, c)
            for s, plan, c in zip(problem.spaces, plans, model.centroids, strict=True)
        ]
        found = fit(problem, halved)
        if not found.objective <= model.objective:
            break
        plans, model = halved, found
    return plans, model


def spaces_of(
    points: Any, edges: Any, mass: Any, weights: Sequence[float | int] | None, n_tokens: int | None
) -> list[Space]:
    """Check the data of one or several teachers and prepare them; `fgw_barycenter` says what is allowed."""
    several = not isinstance(points, Tensor)
    all_points = list(points) if several else [points]
    all_edges = list(edges) if several else [edges]
    masses = [None] * len(all_points) if mass is None else list(mass) if several else [mass]
    shares = _shares(weights, len(all_points))
    if n_tokens is not None:
        validation.integer("n_tokens", n_tokens)
    if not len(all_points) == len(all_edges) == len(masses):
        found = f"{len(all_points)} points, {len(all_edges)} edges and {len(masses)} masses"
        raise ConfigError(f"points, edges and mass must be of equally many teachers, got {found}")
    names = [f"[{b}]" if several else "" for b in range(len(all_points))]
    for name, x, e in zip(names, all_points, all_edges, strict=True):
        _check_points(f"points{name}", x)
        check_edges(f"edges{name}", e, len(x), n_tokens)
    S = 1 + max(int(e.token.max()) for e in all_edges) if n_tokens is None else n_tokens
    ps = [_normalised(f"mass{name}", p, x) for name, p, x in zip(names, masses, all_points, strict=True)]
    return [
        _space(x, Graph(unit_mass(e, p), p, S), p, share)
        for x, e, p, share in zip(all_points, all_edges, ps, shares, strict=True)
    ]


def _space(x: Tensor, graph: Graph, p: Tensor, weight: float) -> Space:
    """Centre the points and measure their variance."""
    mean = (p.double() @ x.detach().double()).to(x)
    x = x.detach() - mean
    square = x.square().sum(1)
    variance = float(torch.dot(square.double(), p.double()))
    return Space(x, mean, square, variance or 1.0, p, graph, weight)


def _mixed(spaces: Sequence[Space], values: Sequence[Tensor]) -> Tensor:
    """Return the mean of the teachers' values by the teachers' weights."""
    total = spaces[0].weight * values[0]
    for space, value in zip(spaces[1:], values[1:], strict=True):
        total = total + space.weight * value
    return total


def _halved(space: Space, plan: Plan, widest: int, empty: int, centroids: Tensor) -> Plan:
    """Move the points of a cluster that are nearer to its farthest point than to its centroid to another cluster."""
    index = plan.members(widest)
    if len(index) == 0:
        return plan
    x = space.x[index]
    near = (x - centroids[widest].to(x)).square().sum(1)
    far = (x - x[near.argmax()]).square().sum(1)
    return plan.moved(index[far < near], widest, empty)


def _shares(weights: Sequence[float | int] | None, teachers: int) -> list[float]:
    """Return the teachers' weights, together 1."""
    given = [1.0] * teachers if weights is None else [float(weight) for weight in weights]
    if len(given) != teachers or not given or not all(0 < weight < float("inf") for weight in given):
        raise ConfigError(f"weights must be {max(teachers, 1)} finite numbers > 0, one per teacher, got {weights!r}")
    return [weight / sum(given) for weight in given]


def _check_points(name: str, x: Any) -> None:
    """Refuse what is no finite array of points."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64) or x.ndim != 2 or len(x) == 0:
        found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"{name} must be a float32 or float64 tensor of shape (N, d) with N >= 1, got {found}")
    wrong = ~x.isfinite().all(1)
    if wrong.any():
        raise DataError(f"{name}[{int(wrong.nonzero()[0])}] must be finite, got NaN or an infinity")


def _normalised(name: str, mass: Tensor | None, x: Tensor) -> Tensor:
    """Return the masses of the points, together 1, in the points' dtype."""
    p = torch.ones(len(x), dtype=torch.float64, device=x.device) if mass is None else mass.double()
    if p.shape != x.shape[:1]:
        raise DataError(f"{name} must have shape {tuple(x.shape[:1])}, got {tuple(p.shape)}")
    wrong = ~(p.isfinite() & (p > 0))
    if wrong.any():
        where = int(wrong.nonzero()[0])
        raise DataError(f"{name}[{where}] must be finite and > 0, got {float(p[where])}")
    return (p / p.sum()).to(x)
