r"""Greedy merging of the states of a quotient graph by the conditional Kullback-Leibler cost.

The cost of a partition with symbol weights n(k, a), the end included, and edge weights n(k, a, l) is

.. math:: J = -\sum_{k,a} n_{ka} \log P(a|k) - \lambda \sum_{k,a,l} n_{kal} \log P(l|k,a)

with the relative frequencies for P. At lambda = 1 it is minus the log-likelihood of the complete data. A greater lambda
favours deterministic automata; for lambda >= 1 the cost is lowest at the true deterministic automaton and at its
refinements. With phi(x) = x log x the cost is a sum of phi over cells, so that a merge changes only the rows and
columns of its pair. The *increase* of a pair is the change of the cost if its two clusters are merged, and the *gain*
of two cells is phi(x + y) - phi(x) - phi(y). Notation: S tokens, V = S + 1 symbols, K clusters, K0 before merging.
"""

from dataclasses import dataclass
from functools import cached_property
from math import log

import torch
from torch import Tensor

from kdzoo.automata.clustering import consecutive_labels
from kdzoo.automata.counts import Quotient
from kdzoo.core.validation import integer, positive
from kdzoo.errors import ConfigError

# Cells of a three-dimensional temporary: 32 MB in float64. All rows at once would need K0 times the memory.
BLOCK = 1 << 22

# Relative change of the cost that counts as rounding: without it, moves of equal cost could go round in circles.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class MergePath:
    """The path of a greedy merge, from K0 clusters downwards; entry i has K0 - i states.

    Args:
        n_states: Number of states of each entry, downwards.
        pairs: The merges in order, as (remaining, absorbed) indices of the K0 clusters.
        costs: Cost J of each entry, one more than there are pairs, in nats.
        penalties: Term that the penalised objective adds to each entry, in nats.
    """

    n_states: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    costs: tuple[float, ...]
    penalties: tuple[float, ...]

    @cached_property
    def objective(self) -> tuple[float, ...]:
        """Penalised objective of each entry."""
        return tuple(cost + penalty for cost, penalty in zip(self.costs, self.penalties, strict=True))

    def best(self) -> int:
        """Return the number of states with the lowest penalised objective."""
        return self.n_states[min(range(len(self.objective)), key=self.objective.__getitem__)]

    def groups(self, n_states: int) -> Tensor:
        """Return the group of each of the K0 clusters once ``n_states`` are left, int64 ``[K0]`` without gaps."""
        root = torch.arange(self.n_states[0])
        for remaining, absorbed in self.pairs[: self.n_states[0] - n_states]:
            root[root == absorbed] = remaining
        return consecutive_labels(root)


def cost(quotient: Quotient, determinism: float = 1.0) -> float:
    """Return the cost J of a quotient, in nats."""
    emissions, edges = quotient.emissions, quotient.transitions
    symbols = _phi(emissions.sum(1)).sum() - _phi(emissions).sum()
    return float(symbols + determinism * (_phi(edges.sum(2)).sum() - _phi(edges).sum()))


def merge_path(quotient: Quotient, *, n_states: int = 1, determinism: float = 1.0, penalty: float = 1.0) -> MergePath:
    r"""Merge the pair with the smallest increase of the cost, repeatedly, and return the path.

    The penalised objective that chooses a number of states is

    .. math:: J + \tfrac{\mathrm{penalty}}{2} \log(N) \, K (S + 1)

    Args:
        quotient: The quotient graph of K0 clusters.
        n_states: Number of states at which to stop, in 1..K0.
        determinism: The weight lambda > 0 of the transitions.
        penalty: Factor of the penalty, > 0; 1 is the Bayesian information criterion of a deterministic automaton.

    Raises:
        ConfigError: If an argument is out of range.
    """
    integer("n_states", n_states)
    positive("determinism", determinism)
    positive("penalty", penalty)
    clusters = quotient.n_clusters
    if n_states > clusters:
        raise ConfigError(f"n_states must be at most the number of clusters {clusters}, got {n_states}")
    increases = _PairIncreases(quotient, determinism)
    pairs, costs = [], [cost(quotient, determinism)]
    for _ in range(clusters - n_states):
        remaining, absorbed, change = increases.smallest()
        increases.merge(remaining, absorbed)
        pairs.append((remaining, absorbed))
        costs.append(costs[-1] + change)
    # A deterministic automaton has about one free parameter for each state and symbol: K (S + 1) = K V.
    per_state = penalty / 2 * log(max(quotient.weight, 1.0)) * quotient.emissions.shape[1]
    penalties = tuple(per_state * states for states in range(clusters, n_states - 1, -1))
    return MergePath(tuple(range(clusters, n_states - 1, -1)), tuple(pairs), tuple(costs), penalties)


def refine(quotient: Quotient, groups: Tensor, *, determinism: float = 1.0, max_sweeps: int = 10) -> Tensor:
    """Move single clusters between groups as long as that lowers the cost; no group becomes empty.

    Greedy merges are never taken back; these moves correct the ones that later merges made unfavourable.

    Args:
        quotient: The quotient graph of K0 clusters.
        groups: Group of each cluster, int64 ``[K0]`` without gaps.
        determinism: The weight lambda > 0 of the transitions.
        max_sweeps: Greatest number of passes over the clusters.

    Returns:
        The groups, int64 ``[K0]``, as many as before, with a cost that is not greater.
    """
    groups = groups.clone()
    merged = quotient.merged(groups)
    emissions, edges = merged.emissions, merged.transitions
    for _ in range(max_sweeps):
        moves = 0
        for cluster in range(quotient.n_clusters):
            old = int(groups[cluster])
            if int((groups == old).sum()) == 1:
                continue
            counts = _ClusterCounts.of(quotient, groups, cluster)
            counts.add(emissions, edges, old, -1.0)
            increases = counts.increases(emissions, edges, determinism)
            new = int(increases.argmin())
            if increases[new] >= increases[old] - TOLERANCE * (1 + abs(float(increases[old]))):
                new = old
            counts.add(emissions, edges, new, 1.0)
            groups[cluster] = new
            moves += new != old
        if not moves:
            break
    return groups


@dataclass(frozen=True, eq=False)
class _ClusterCounts:
    """The counts of one cluster relative to the groups of the others.

    Args:
        emissions: Symbols of the cluster ``[V]``.
        out: Edges to each group ``[S, K]``.
        into: Edges from each group ``[S, K]``.
        loops: Edges from the cluster to itself ``[S]``, which are not part of ``out`` and ``into``.
    """

    emissions: Tensor
    out: Tensor
    into: Tensor
    loops: Tensor

    @classmethod
    def of(cls, quotient: Quotient, groups: Tensor, cluster: int) -> "_ClusterCounts":
        edges, states = quotient.transitions, int(groups.max()) + 1
        loops = edges[:, cluster, cluster]
        empty = edges.new_zeros(len(edges), states)
        out = empty.index_add(1, groups, edges[:, cluster, :])
        into = empty.index_add(1, groups, edges[:, :, cluster])
        out[:, groups[cluster]] -= loops
        into[:, groups[cluster]] -= loops
        return cls(quotient.emissions[cluster], out, into, loops)

    def add(self, emissions: Tensor, edges: Tensor, group: int, sign: float) -> None:
        """Add the cluster to a group (sign 1), or remove it (sign -1), in place."""
        emissions[group] += sign * self.emissions
        edges[:, group, :] += sign * self.out
        edges[:, :, group] += sign * self.into
        edges[:, group, group] += sign * self.loops
        if sign < 0:
            # What should be 0 may be a little below after subtraction, and x log x would then be NaN.
            emissions[group].clamp_(min=0)
            edges[:, group, :].clamp_(min=0)
            edges[:, :, group].clamp_(min=0)

    def increases(self, emissions: Tensor, edges: Tensor, determinism: float) -> Tensor:
        """Return the increase of the cost for each group to which the cluster could be added ``[K]``."""
        own = self.emissions
        symbols = _gain(emissions.sum(1), own.sum()) - _gain(emissions, own).sum(1)
        # The cell of a group's loops takes edges out, edges in and loops at once; its row and column take one each.
        loops = edges.diagonal(dim1=1, dim2=2)
        rows = edges.sum(2)
        out_total = self.out.sum(1, keepdim=True) + self.loops[:, None]
        pairs = (_phi(rows + out_total + self.into) - _phi(rows + self.into)).sum(0)
        cells = (_phi(edges + self.out[:, None, :]) - _phi(edges)).sum((0, 2))
        cells = cells + (_phi(edges + self.into[:, :, None]) - _phi(edges)).sum((0, 1))
        cells = cells - (_phi(loops + self.out) - _phi(loops)).sum(0) - (_phi(loops + self.into) - _phi(loops)).sum(0)
        cells = cells + (_phi(loops + self.out + self.into + self.loops[:, None]) - _phi(loops)).sum(0)
        return symbols + determinism * (pairs - cells)


class _PairIncreases:
    """The increase of the cost for every pair of clusters, updated after each merge.

    The increase of a pair is that of its symbols, plus lambda times the gain of its row totals minus the gain of all
    pairs of cells that are merged. Cells are merged in rows (same target), in columns (same source), and in the
    corner of the pair's own four cells. After a merge, the pairs that do not contain the merged cluster change only in
    the cells of the merged row and column; those of the merged cluster are recomputed.
    """

    def __init__(self, quotient: Quotient, determinism: float) -> None:
        self.emissions = quotient.emissions.clone()
        self.edges = quotient.transitions.clone()
        self.determinism = determinism
        clusters = quotient.n_clusters
        self.alive = torch.ones(clusters, dtype=torch.bool)
        self.values = torch.stack([self._compute(cluster) for cluster in range(clusters)])
        self.values.fill_diagonal_(torch.inf)

    def smallest(self) -> tuple[int, int, float]:
        """Return the pair of the smallest increase, the first of equals, with its increase."""
        index = int(self.values.argmin())
        first, second = sorted(divmod(index, len(self.values)))
        return first, second, float(self.values[first, second])

    def merge(self, remaining: int, absorbed: int) -> None:
        """Merge cluster ``absorbed`` into ``remaining``."""
        # First take the old cells out of all other pairs, then put the merged ones in.
        for cluster in (remaining, absorbed):
            self._add_cells(cluster, self.determinism)
        self.emissions[remaining] += self.emissions[absorbed]
        self.emissions[absorbed] = 0
        for view in (self.edges, self.edges.transpose(1, 2)):
            view[:, remaining] += view[:, absorbed]
            view[:, absorbed] = 0
        self._add_cells(remaining, -self.determinism)
        self.alive[absorbed] = False
        updated = self._compute(remaining).masked_fill(~self.alive, torch.inf)
        self.values[remaining] = self.values[:, remaining] = updated
        self.values[remaining, remaining] = torch.inf
        self.values[absorbed] = self.values[:, absorbed] = torch.inf

    def _add_cells(self, cluster: int, factor: float) -> None:
        """Add factor times the gain of the cells in one column and one row to the increases of all pairs."""
        for cells in (self.edges[:, :, cluster], self.edges[:, cluster, :]):  # [S, K]
            # Only the tokens and clusters with counts: quotient graphs are sparse, and a cell of 0 gains nothing.
            positive = cells > 0
            tokens, clusters = positive.any(1).nonzero()[:, 0], positive.any(0).nonzero()[:, 0]
            block = cells[tokens][:, clusters]
            if len(clusters) > 1:
                self.values[clusters[:, None], clusters] += factor * _pair_gains(block)

    def _compute(self, cluster: int) -> Tensor:
        """Return the increase for the pairs of one cluster with every other ``[K]``."""
        own = self.emissions[cluster]
        symbols = _gain(self.emissions.sum(1), own.sum()) - _gain(self.emissions, own).sum(1)
        totals = self.edges.sum(2)
        rows = _gain(totals, totals[:, cluster, None]).sum(0)
        cells = _shared_gains(self.edges.transpose(1, 2), cluster) + _shared_gains(self.edges, cluster)
        return symbols + self.determinism * (rows - cells - self._corner(cluster))

    def _corner(self, cluster: int) -> Tensor:
        """Return the gain of the four cells of each pair beyond the gains of rows and columns ``[K]``."""
        own = self.edges[:, cluster, cluster, None].expand(-1, len(self.alive))
        out, into = self.edges[:, cluster, :], self.edges[:, :, cluster]
        loops = self.edges.diagonal(dim1=1, dim2=2)
        together = _phi(own + out + into + loops) + _phi(own) + _phi(out) + _phi(into) + _phi(loops)
        return (together - _phi(own + into) - _phi(out + loops) - _phi(own + out) - _phi(into + loops)).sum(0)


def _shared_gains(edges: Tensor, cluster: int) -> Tensor:
    """Return the gain of joining each column with one column, over the cells where that one is not zero ``[K]``.

    The cells are edges[a, i, k] with the cluster k last.
    """
    first, second = edges[:, :, cluster].nonzero(as_tuple=True)
    return _gain(edges[first, second], edges[first, second, cluster][:, None]).sum(0)


def _pair_gains(block: Tensor) -> Tensor:
    """Return the gain of each pair of columns, summed over the rows: ``[c, r]`` -> ``[r, r]``."""
    own = _phi(block).sum(0)
    together = torch.zeros(len(own), len(own), dtype=block.dtype)
    for part in block.split(max(1, BLOCK // len(own) ** 2)):
        together += _phi(part[:, :, None] + part[:, None, :]).sum(0)
    return together - own[:, None] - own


def _gain(first: Tensor, second: Tensor) -> Tensor:
    return _phi(first + second) - _phi(first) - _phi(second)


def _phi(value: Tensor) -> Tensor:
    """Return x log x, which is 0 at 0."""
    return torch.xlogy(value, value)
