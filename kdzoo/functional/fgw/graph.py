"""Labelled transitions between points, and the sums over them that a transport plan needs, without an N x N array.

Notation: N points with masses p > 0, K clusters, S tokens, E edges (i, j, a, w): token a leads from point i to
point j, with weight w. A plan T >= 0, ``[N, K]``, has rows that sum to p; the masses of its clusters are h = T'1.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import embedding_bag

from kdzoo.functional.fgw.plan import HardPlan, Plan


class Edges(NamedTuple):
    """Transitions between points. Several edges with the same ends and token act as one edge of their total weight.

    Attributes:
        source: Index of the point where an edge starts, int64 ``[E]``.
        target: Index of the point where it ends, int64 ``[E]``.
        token: Its token, 0 to S - 1, int64 ``[E]``.
        weight: Its weight > 0, ``[E]``; None for 1 each.

    Example:
        >>> import torch
        >>> Edges(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([0, 0])).weight is None
        True
    """

    source: Tensor
    target: Tensor
    token: Tensor
    weight: Tensor | None = None


class Graph:
    """The edges of N points, sorted for the sums over edges that a plan needs.

    Args:
        edges: The transitions, with indices of the points.
        p: Masses of the points, ``[N]``; their dtype is that of all ``[N, K]`` arrays.
        n_tokens: Number of tokens S.
    """

    def __init__(self, edges: Edges, p: Float[Tensor, " n"], n_tokens: int) -> None:
        source, target, token, weight = _sorted_unique(edges, len(p))
        self.p, self.n_tokens = p, n_tokens
        self.source, self.target, self.token, self.weight = source, target, token, weight.to(p)
        # The masses of edges are of order 1/E: float32 has too few digits for sums of that many.
        self.mass = weight * p.double()[source] * p.double()[target]
        self.token_ends = torch.bincount(token, minlength=n_tokens).cumsum(0).tolist()
        # Every edge is listed twice: its source has a successor, its target a predecessor. Sorted by the point that
        # receives the gain, each point owns one slice, which is the layout that ``embedding_bag`` sums over.
        receiver, neighbour = torch.cat([source, target]), torch.cat([target, source])
        receiver, order = receiver.sort(stable=True)
        self.neighbour = neighbour[order]
        self.channel = torch.cat([token, token + n_tokens])[order]  # S channels for successors, S for predecessors
        self.neighbour_weight = torch.cat([self.weight, self.weight])[order] * p[self.neighbour]
        self.offsets = torch.searchsorted(receiver, torch.arange(len(p) + 1, device=p.device))

    def joint_mass(self, plan: Plan) -> Float64[Tensor, "s k k"]:
        r"""Return the mass of the transitions between clusters, :math:`W_a[k, l] = \sum_{(i,j,a,w)} w T_{ik} T_{jl}`.

        Args:
            plan: The plan T.

        Returns:
            Float64 values >= 0, ``[S, K, K]``.
        """
        S, K = self.n_tokens, plan.clusters
        if isinstance(plan, HardPlan):
            cells = (self.token * K + plan.labels[self.source]) * K + plan.labels[self.target]
            return torch.bincount(cells, self.mass, S * K * K).view(S, K, K)
        W = torch.zeros(S, K, K, dtype=torch.float64, device=self.p.device)
        for a, i, j, w in self._by_token():
            W[a] = plan.shares[i].T @ (w * plan.shares[j])
        return W

    def neighbour_gains(self, plan: Plan, directed_gains: Float[Tensor, "2 s k k"]) -> Float[Tensor, "n k"]:
        r"""Return :math:`L_B(T)`: what every point gains in every cluster through its successors and predecessors.

        .. math:: L_B(T)_{ik} = \sum_{(i,j,a,w)} w \sum_l B_a[k,l] T_{jl} + \sum_{(j,i,a,w)} w \sum_l B_a[l,k] T_{jl}

        The map is linear and self-adjoint in T. A hard plan picks one row or column of B for each edge, which costs
        O(E K); a soft plan costs O(E K^2).

        Args:
            plan: The plan T.
            directed_gains: The matrices B for both directions, see :func:`both_directions`.

        Returns:
            The gains, ``[N, K]``.
        """
        if isinstance(plan, HardPlan):
            index = torch.add(plan.labels.index_select(0, self.neighbour), self.channel, alpha=plan.clusters)
            rows = directed_gains.view(-1, plan.clusters)
            # A weighted sum of table rows per point, without an array [2 E, K] in between.
            return embedding_bag(
                index,
                rows,
                self.offsets,
                mode="sum",
                per_sample_weights=self.neighbour_weight,
                include_last_offset=True,
            )
        gains = torch.zeros_like(plan.shares)
        for a, i, j, w in self._by_token():
            gains.index_add_(0, i, (w * plan.shares[j]) @ directed_gains[0, a])
            gains.index_add_(0, j, (w * plan.shares[i]) @ directed_gains[1, a])
        return gains

    def _by_token(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield every token that occurs, with sources, targets and weights ``[E_a, 1]`` of its edges."""
        for a, (start, stop) in enumerate(itertools.pairwise([0, *self.token_ends])):
            if stop > start:
                edges = slice(start, stop)
                yield a, self.source[edges], self.target[edges], self.weight[edges].unsqueeze(1)


def both_directions(B: Float[Tensor, "s k k"]) -> Float[Tensor, "2 s k k"]:
    """Return the matrices B transposed, for gains through successors, and as they are, for predecessors."""
    return torch.stack([B.mT, B])


def with_unit_mass(edges: Edges, p: Float[Tensor, " n"]) -> Edges:
    """Scale the weights so that the total mass of the transitions, the sum of w p_i p_j over the edges, is 1.

    The comparison of transitions then has one size for every number of points. Unscaled, its useful part shrinks as
    1/N^2 for the squared difference and as 1/N for the Kullback-Leibler divergence, and the weight alpha of the
    points would mean something else for each N.
    """
    weight = (torch.ones_like(edges.source) if edges.weight is None else edges.weight).double()
    mass = (weight * p.double()[edges.source] * p.double()[edges.target]).sum()
    return edges._replace(weight=weight / mass)


def _sorted_unique(edges: Edges, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return source, target, token and weight, sorted by token, source and target, with equal edges added up."""
    key = (edges.token * n + edges.source) * n + edges.target  # one number per (token, source, target)
    key, inverse = key.unique(return_inverse=True)
    weight = torch.ones_like(edges.source) if edges.weight is None else edges.weight
    total = torch.bincount(inverse, weight.double(), len(key))
    return key // n % n, key % n, key // (n * n), total
