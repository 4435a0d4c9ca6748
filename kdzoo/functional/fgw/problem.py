"""The objective of the fused Gromov-Wasserstein barycenter, and its closed-form minimum for given plans."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from kdzoo.functional.fgw.graph import Graph
from kdzoo.functional.fgw.plan import Plan
from kdzoo.functional.fgw.transition_cost import TransitionCost, transition_cost


@dataclass(frozen=True, eq=False)
class Space:
    """The points of one teacher.

    Attributes:
        x: Points minus their mean, divided by ``scale``, ``[N, d]``.
        mean: Weighted mean of the points, ``[d]``.
        scale: Power of 2, larger than the largest distance of a coordinate from the mean by a factor of at most 2.
        square: Squared norms of ``x``, ``[N]``.
        variance: Weighted mean of ``square``, or 1 if that is 0.
        p: Masses of the points, which sum to 1, ``[N]``.
        graph: Transitions between the points, of mass 1.
        weight: Weight of the teacher in the objective.
    """

    x: Tensor
    mean: Tensor
    scale: float
    square: Tensor
    variance: float
    p: Tensor
    graph: Graph
    weight: float

    def points(self, centroids: Float64[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Return centroids in the coordinates of the original points."""
        return (centroids * self.scale + self.mean).to(self.x)

    def costs(self, centroids: Float64[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        """Return M, the squared distances to the centroids divided by the total variance."""
        c = centroids.to(self.x)
        # |x|^2 - 2 x'c + |c|^2 in one product and in place: no array is larger than [N, K].
        distances = torch.addmm(c.square().sum(1), self.x, c.T, alpha=-2).add_(self.square.unsqueeze(1))
        return distances.div_(self.variance)

    def centroids(self, plan: Plan, h: Float64[Tensor, " k"]) -> Float64[Tensor, "k d"]:
        """Return the weighted means of the clusters; for a cluster without mass, the mean of all points."""
        # The points are centred, so that the sum of nothing, 0, is the mean of all points.
        return plan.sums(self.x) / torch.where(h > 0, h, 1.0).unsqueeze(1)

    def spread(self, plan: Plan, h: Float64[Tensor, " k"], c: Float64[Tensor, "k d"]) -> Float64[Tensor, " k"]:
        """Return the part of every cluster in <M, T>, for centroids ``c`` that are the means of the clusters."""
        return (plan.sums(self.square.unsqueeze(1)).squeeze(1) - h * c.square().sum(1)) / self.variance


@dataclass(frozen=True, eq=False)
class Problem:
    """The data and settings of the objective; see :class:`kdzoo.functional.fgw.barycenter.BarycenterSettings`."""

    spaces: Sequence[Space]
    clusters: int
    alpha: float
    loss: str
    determinism: float
    smoothing: float


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """The best centroids and transitions for given plans, with the statistics that they follow from.

    Attributes:
        centroids: Centroids of the clusters in the space of each teacher, ``[K, d_b]``.
        h: Masses of the clusters, mean over the teachers, ``[K]``.
        H: Products of masses, mean over the teachers, ``[K, K]``.
        W: Joint masses of transitions, mean over the teachers, ``[S, K, K]``.
        spread: Variance within every cluster, mean over the teachers, ``[K]``.
        cost: Cost of transitions, times its weight 1 - alpha.
        objective: Value of the objective at the plans with these centroids and transitions.
    """

    centroids: Sequence[Tensor]
    h: Tensor
    H: Tensor
    W: Tensor
    spread: Tensor
    cost: TransitionCost
    objective: float


def closed_form(problem: Problem, plans: Sequence[Plan]) -> ClusterModel:
    """Return the centroids and transitions that minimize the objective for given plans, one plan per teacher."""
    spaces, masses = problem.spaces, [plan.masses() for plan in plans]
    centroids = [s.centroids(T, h) for s, T, h in zip(spaces, plans, masses, strict=True)]
    spreads = [s.spread(T, h, c) for s, T, h, c in zip(spaces, plans, masses, centroids, strict=True)]
    h, spread = _teacher_mean(spaces, masses), _teacher_mean(spaces, spreads)
    # The mean of products, not the product of means: the objective is the sum of the teachers' objectives.
    H = _teacher_mean(spaces, [torch.outer(h, h) for h in masses])
    W = _teacher_mean(spaces, [s.graph.joint_mass(T) for s, T in zip(spaces, plans, strict=True)])
    cost = transition_cost(problem.loss, W, H, smoothing=problem.smoothing, determinism=problem.determinism)
    cost = cost.scaled(1 - problem.alpha)
    objective = problem.alpha * float(spread.sum()) + cost.value(W, H)
    return ClusterModel(centroids, h, H, W, spread, cost, objective)


def reseed_empty(problem: Problem, plans: list[Plan], model: ClusterModel) -> tuple[list[Plan], ClusterModel]:
    """Give every empty cluster the far half of the widest cluster, if this does not raise the objective.

    Without this step an empty cluster may stay empty forever: it has no centroid near any point. Splitting a cluster
    never raises the lowest possible value under the losses "l2" and "kl"; under "sparse" it may.

    Args:
        problem: The objective.
        plans: Plans, one per teacher.
        model: The closed form for these plans.

    Returns:
        Plans and their closed form.
    """
    # Steps towards plans that avoid a cluster shrink its mass, but never to 0: less than half of the lightest point
    # is treated as empty.
    negligible = min(float(s.weight * s.p.min()) for s in problem.spaces) / 2
    for empty in (model.h < negligible).nonzero().flatten().tolist():
        widest = int(model.spread.argmax())
        split_plans = [
            _split(s, plan, widest, empty, c) for s, plan, c in zip(problem.spaces, plans, model.centroids, strict=True)
        ]
        split_model = closed_form(problem, split_plans)
        # Written so that a NaN objective is rejected too.
        if not split_model.objective <= model.objective:
            break
        plans, model = split_plans, split_model
    return plans, model


def _teacher_mean(spaces: Sequence[Space], values: Sequence[Tensor]) -> Tensor:
    """Return the mean of one value per teacher by the weights of the teachers."""
    total = spaces[0].weight * values[0]
    for space, value in zip(spaces[1:], values[1:], strict=True):
        total = total + space.weight * value
    return total


def _split(space: Space, plan: Plan, widest: int, empty: int, centroids: Tensor) -> Plan:
    """Move the points of a cluster that are nearer to its farthest point than to its centroid to an empty cluster."""
    index = plan.members(widest)
    if len(index) == 0:
        return plan
    x = space.x[index]
    to_centroid = (x - centroids[widest].to(x)).square().sum(1)
    to_farthest = (x - x[to_centroid.argmax()]).square().sum(1)
    return plan.moved(index[to_farthest < to_centroid], widest, empty)
