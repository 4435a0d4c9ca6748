"""Transport plans from points to clusters: soft plans as dense arrays, hard plans as one label per point.

Frank-Wolfe ends at a hard plan almost always, and N labels then replace an array ``[N, K]``; sums over edges cost
O(E K) instead of O(E K^2). Both kinds of plans have the same methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SoftPlan:
    """A plan that may share the mass of a point among clusters.

    Attributes:
        p: Masses of the points, ``[N]``.
        shares: The plan T >= 0, ``[N, K]``, whose rows sum to ``p``.
    """

    p: Float[Tensor, " n"]
    shares: Float[Tensor, "n k"]

    @property
    def clusters(self) -> int:
        """Number of clusters K."""
        return self.shares.shape[1]

    def dense(self) -> Float[Tensor, "n k"]:
        """Return T as a new array."""
        return self.shares.clone()

    def masses(self) -> Float64[Tensor, " k"]:
        """Return the masses h = T'1 of the clusters."""
        # In float64, since a sum of many float32 masses would lose the mass of small clusters.
        return self.shares.sum(0, dtype=torch.float64)

    def sums(self, points: Float[Tensor, "n d"]) -> Float64[Tensor, "k d"]:
        """Return T'x, the weighted sum of the points in every cluster."""
        # The product runs in the dtype of the points: a float64 copy of T would double the memory.
        return (self.shares.T @ points).double()

    def inner(self, costs: Float[Tensor, "n k"]) -> float:
        """Return the inner product <costs, T>."""
        return float(torch.dot(costs.reshape(-1), self.shares.reshape(-1)))

    def members(self, cluster: int) -> Int64[Tensor, " m"]:
        """Return the indices of the points that have mass in a cluster."""
        return self.shares[:, cluster].nonzero().flatten()

    def moved(self, points: Int64[Tensor, " m"], source: int, target: int) -> SoftPlan:
        """Return the plan with the mass that some points have in one cluster moved to another cluster."""
        T = self.dense()
        T[points, target] += T[points, source]
        T[points, source] = 0
        return SoftPlan(self.p, T)

    def towards(self, vertex: HardPlan, step: float) -> Plan:
        """Return T + step * (V - T)."""
        return vertex if step == 1 else _add_hard_plan(self.shares * (1 - step), vertex, step)


@dataclass(frozen=True, eq=False)
class HardPlan:
    """A plan that puts the whole mass of every point into one cluster: a vertex of the set of plans.

    Attributes:
        p: Masses of the points, ``[N]``.
        clusters: Number of clusters K.
        labels: The cluster of every point, int64 ``[N]``.
    """

    p: Float[Tensor, " n"]
    clusters: int
    labels: Int64[Tensor, " n"]

    def dense(self) -> Float[Tensor, "n k"]:
        """Return T as a new array."""
        T = self.p.new_zeros(len(self.p), self.clusters)
        return T.scatter_(1, self.labels.unsqueeze(1), self.p.unsqueeze(1))

    def masses(self) -> Float64[Tensor, " k"]:
        """Return the masses h = T'1 of the clusters."""
        return torch.bincount(self.labels, self.p.double(), self.clusters)

    def sums(self, points: Float[Tensor, "n d"]) -> Float64[Tensor, "k d"]:
        """Return T'x, the weighted sum of the points in every cluster."""
        weighted = points.double() * self.p.double().unsqueeze(1)
        return weighted.new_zeros(self.clusters, points.shape[1]).index_add_(0, self.labels, weighted)

    def inner(self, costs: Float[Tensor, "n k"]) -> float:
        """Return the inner product <costs, T>."""
        return float(torch.dot(costs.gather(1, self.labels.unsqueeze(1)).squeeze(1), self.p))

    def members(self, cluster: int) -> Int64[Tensor, " m"]:
        """Return the indices of the points in a cluster."""
        return (self.labels == cluster).nonzero().flatten()

    def moved(self, points: Int64[Tensor, " m"], source: int, target: int) -> HardPlan:  # noqa: ARG002
        """Return the plan with some points of one cluster moved to another cluster."""
        return HardPlan(self.p, self.clusters, self.labels.index_fill(0, points, target))

    def towards(self, vertex: HardPlan, step: float) -> Plan:
        """Return T + step * (V - T)."""
        # A full step ends exactly at the vertex, which keeps the plan hard and the following sums cheap.
        return vertex if step == 1 else _add_hard_plan(self.dense().mul_(1 - step), vertex, step)


Plan = SoftPlan | HardPlan


def _add_hard_plan(T: Float[Tensor, "n k"], vertex: HardPlan, share: float) -> SoftPlan:
    """Add a share of a hard plan to an array in place, and return the sum as a plan."""
    T.scatter_add_(1, vertex.labels.unsqueeze(1), (share * vertex.p).unsqueeze(1))
    return SoftPlan(vertex.p, T)
