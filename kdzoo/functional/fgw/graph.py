"""Labelled transitions between points, and what a transport plan makes of them without an N x N array.

Notation: N points with masses p > 0, K clusters, S tokens, E edges (i, j, a, w): token a leads from point i to
point j, with weight w. A plan T >= 0 of shape (N, K) has row sums p; its masses are h = T'1.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import embedding_bag

from kdzoo.errors import DataError
from kdzoo.functional.fgw.plan import HardPlan, Plan


class Edges(NamedTuple):
    """Transitions between points; several edges with the same ends and token count as one of their summed weight.

    Attributes:
        source: Index of the point where an edge starts, int64 (E,).
        target: Index of the point where it ends, int64 (E,).
        token: Its token, 0 to S - 1, int64 (E,).
        weight: Its weight > 0, (E,); None for 1 each.

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
    """The edges of N points, sorted for the sums over edges that the plan needs.

    Args:
        edges: The transitions, their indices within the points.
        p: Masses of the points, (N,); their dtype is that of all (N, K) arrays.
        n_tokens: Number of tokens S.
    """

    def __init__(self, edges: Edges, p: Float[Tensor, " n"], n_tokens: int) -> None:
        source, target, token, weight = _summed(edges, len(p))
        self.p, self.n_tokens = p, n_tokens
        self.source, self.target, self.token, self.weight = source, target, token, weight.to(p)
        self.mass = weight * p.double()[source] * p.double()[target]
        self.bounds = torch.bincount(token, minlength=n_tokens).cumsum(0).tolist()
        # every edge is met twice: its source looks at its successor, its target at its predecessor
        receiver, neighbour = torch.cat([source, target]), torch.cat([target, source])
        receiver, order = receiver.sort(stable=True)
        self.neighbour = neighbour[order]
        self.channel = torch.cat([token, token + n_tokens])[order]
        self.pull = torch.cat([self.weight, self.weight])[order] * p[self.neighbour]
        self.offsets = torch.searchsorted(receiver, torch.arange(len(p) + 1, device=p.device))

    def joint(self, plan: Plan) -> Float64[Tensor, "s k k"]:
        """Return W_a[k, l], the sum over edges of w T_ik T_jl, in float64."""
        S, K = self.n_tokens, plan.clusters
        if isinstance(plan, HardPlan):
            cells = (self.token * K + plan.labels[self.source]) * K + plan.labels[self.target]
            return torch.bincount(cells, self.mass, S * K * K).view(S, K, K)
        W = torch.zeros(S, K, K, dtype=torch.float64, device=self.p.device)
        for a, i, j, w in self._by_token():
            W[a] = plan.shares[i].T @ (w * plan.shares[j])
        return W

    def pulled(self, plan: Plan, both: Float[Tensor, "2 s k k"]) -> Float[Tensor, "n k"]:
        r"""Return :math:`L_B(T)`, what successors and predecessors of every point pull it towards.

        .. math:: L_B(T)_{ik} = \sum_{(i,j,a,w)} w \sum_l B_a[k,l] T_{jl} + \sum_{(j,i,a,w)} w \sum_l B_a[l,k] T_{jl}

        L_B is linear and self-adjoint. A hard plan picks one row or column of B for each edge: O(E K). A soft
        one takes O(E K^2).

        Args:
            plan: The plan T.
            both: The matrices B transposed, for successors, and B itself, for predecessors: `both_ways`.
        """
        if isinstance(plan, HardPlan):
            index = torch.add(plan.labels.index_select(0, self.neighbour), self.channel, alpha=plan.clusters)
            rows = both.view(-1, plan.clusters)
            return embedding_bag(
                index, rows, self.offsets, mode="sum", per_sample_weights=self.pull, include_last_offset=True
            )
        L = torch.zeros_like(plan.shares)
        for a, i, j, w in self._by_token():
            L.index_add_(0, i, (w * plan.shares[j]) @ both[0, a])
            L.index_add_(0, j, (w * plan.shares[i]) @ both[1, a])
        return L

    def _by_token(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield every token that occurs, with sources, targets and weights (E_a, 1) of its edges."""
        for a, (start, stop) in enumerate(itertools.pairwise([0, *self.bounds])):
            if stop > start:
                part = slice(start, stop)
                yield a, self.source[part], self.target[part], self.weight[part].unsqueeze(1)


def both_ways(B: Float[Tensor, "s k k"]) -> Float[Tensor, "2 s k k"]:
    """Return the matrices B transposed and as they are, in one array."""
    return torch.stack([B.mT, B])


def unit_mass(edges: Edges, p: Float[Tensor, " n"]) -> Edges:
    """Scale the weights so that the transitions between random points, the sum of w p_i p_j, have mass one.

    The comparison of transitions then has one size for every number of points: left as it is, its useful part
    shrinks as 1/N^2 for the squared difference and as 1/N for the Kullback-Leibler divergence.
    """
    weight = (torch.ones_like(edges.source) if edges.weight is None else edges.weight).double()
    mass = (weight * p.double()[edges.source] * p.double()[edges.target]).sum()
    return edges._replace(weight=weight / mass)


def check_edges(name: str, edges: Edges, n: int, n_tokens: int | None) -> None:
    """Refuse edges that do not fit n points or, where it is given, the number of tokens.

    Args:
        name: The argument's name, for the message.
        edges: The transitions.
        n: Number of points.
        n_tokens: Number of tokens, or None for as many as occur.

    Raises:
        DataError: If a part has another shape or dtype than `Edges` says, an index or token is out of range, a
            weight is not positive, or there is no edge.
    """
    size = edges.source.shape
    if len(size) != 1 or size[0] == 0:
        raise DataError(f"{name} must hold at least one transition in flat tensors, got source of shape {tuple(size)}")
    most = {"source": n, "target": n, "token": n_tokens or torch.iinfo(torch.int64).max}
    for part, limit in most.items():
        value = getattr(edges, part)
        if value.dtype != torch.int64 or value.shape != size:
            found = f"{value.dtype} of shape {tuple(value.shape)}"
            raise DataError(f"{name}.{part} must be int64 of shape {tuple(size)}, got {found}")
        wrong = (value < 0) | (value >= limit)
        if wrong.any():
            where = int(wrong.nonzero()[0])
            raise DataError(f"{name}.{part}[{where}] must be in 0..{limit - 1}, got {int(value[where])}")
    if edges.weight is not None:
        if edges.weight.shape != size:
            raise DataError(f"{name}.weight must have shape {tuple(size)}, got {tuple(edges.weight.shape)}")
        wrong = ~(edges.weight.isfinite() & (edges.weight > 0))
        if wrong.any():
            where = int(wrong.nonzero()[0])
            raise DataError(f"{name}.weight[{where}] must be finite and > 0, got {float(edges.weight[where])}")


def _summed(edges: Edges, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return source, target, token and weight sorted by token, source and target, equal edges summed."""
    key = (edges.token * n + edges.source) * n + edges.target
    key, place = key.unique(return_inverse=True)
    weight = torch.ones_like(edges.source) if edges.weight is None else edges.weight
    total = torch.bincount(place, weight.double(), len(key))
    return key // n % n, key % n, key // (n * n), total
