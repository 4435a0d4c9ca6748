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

# Maximum number of elements of the temporary ``[rows, r, r]`` in _pair_gains: 32 MB in float64. For all rows together
# it could need K0 times as much memory.
BLOCK_ELEMENTS = 1 << 22

# Relative change of the cost that is treated as rounding. Without it, a cluster could be moved back and forth between
# two groups of equal cost.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class MergePath:
    """The partitions of a greedy merge in order: entry i has K0 - i states.

    Args:
        n_states: Number of states of each entry, in descending order.
        pairs: The merges in order, as (remaining, absorbed) indices of the K0 clusters; one fewer than entries.
        costs: Cost J of each entry in nats.
        penalties: Term that the penalised objective adds to the cost of each entry, in nats.
    """

    n_states: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    costs: tuple[float, ...]
    penalties: tuple[float, ...]

    @cached_property
    def objective(self) -> tuple[float, ...]:
        """Penalised objective of each entry in nats."""
        return tuple(cost + penalty for cost, penalty in zip(self.costs, self.penalties, strict=True))

    def best(self) -> int:
        """Return the number of states with the lowest penalised objective."""
        return self.n_states[min(range(len(self.objective)), key=self.objective.__getitem__)]

    def groups(self, n_states: int) -> Tensor:
        """Return the group of each of the K0 clusters after merging down to ``n_states``.

        Args:
            n_states: Number of groups, one of the entries of ``self.n_states``.

        Returns:
            Group numbers 0..n_states - 1, int64 ``[K0]``.
        """
        root = torch.arange(self.n_states[0])
        for remaining, absorbed in self.pairs[: self.n_states[0] - n_states]:
            root[root == absorbed] = remaining
        return consecutive_labels(root)


def cost(quotient: Quotient, determinism: float = 1.0) -> float:
    """Return the cost J of a quotient, in nats.

    Args:
        quotient: The quotient graph of K clusters.
        determinism: The weight lambda > 0 of the transitions.
    """
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

    A greedy merge is never undone, although later merges can make it unfavourable; these moves correct that.

    Args:
        quotient: The quotient graph of K0 clusters.
        groups: Group of each cluster, int64 ``[K0]`` without gaps.
        determinism: The weight lambda > 0 of the transitions.
        max_sweeps: Maximum number of passes over the clusters.

    Returns:
        The groups, int64 ``[K0]``, as many as before, with a cost that is not greater.
    """
    groups = groups.clone()
    merged = quotient.merged(groups)
    emissions, edges = merged.emissions, merged.transitions
    for _ in range(max_sweeps):
        n_moves = 0
        for cluster in range(quotient.n_clusters):
            old_group = int(groups[cluster])
            if int((groups == old_group).sum()) == 1:
                continue
            counts = _ClusterCounts.of(quotient, groups, cluster)
            counts.add(emissions, edges, old_group, -1.0)
            increases = counts.increases(emissions, edges, determinism)
            new_group = int(increases.argmin())
            if increases[new_group] >= increases[old_group] - TOLERANCE * (1 + abs(float(increases[old_group]))):
                new_group = old_group
            counts.add(emissions, edges, new_group, 1.0)
            groups[cluster] = new_group
            n_moves += new_group != old_group
        if not n_moves:
            break
    return groups


@dataclass(frozen=True, eq=False)
class _ClusterCounts:
    """The counts of one cluster, with its edges summed by the group of the cluster at the other end.

    Args:
        emissions: Counts of the symbols of the cluster ``[V]``.
        out: Counts of the edges from the cluster to each group ``[S, K]``.
        into: Counts of the edges from each group to the cluster ``[S, K]``.
        loops: Counts of the edges from the cluster to itself ``[S]``, which are not part of ``out`` and ``into``.
    """

    emissions: Tensor
    out: Tensor
    into: Tensor
    loops: Tensor

    @classmethod
    def of(cls, quotient: Quotient, groups: Tensor, cluster: int) -> "_ClusterCounts":
        edges, n_groups = quotient.transitions, int(groups.max()) + 1
        loops = edges[:, cluster, cluster]
        zeros = edges.new_zeros(len(edges), n_groups)
        out = zeros.index_add(1, groups, edges[:, cluster, :])
        into = zeros.index_add(1, groups, edges[:, :, cluster])
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
            # Rounding can make a difference that should be 0 slightly negative, and x log x would then be NaN.
            emissions[group].clamp_(min=0)
            edges[:, group, :].clamp_(min=0)
            edges[:, :, group].clamp_(min=0)

    def increases(self, emissions: Tensor, edges: Tensor, determinism: float) -> Tensor:
        """Return the increase of the cost for each group to which the cluster could be added ``[K]``."""
        symbols = _gain(emissions.sum(1), self.emissions.sum()) - _gain(emissions, self.emissions).sum(1)
        loops = edges.diagonal(dim1=1, dim2=2)
        rows = edges.sum(2)
        out_total = self.out.sum(1, keepdim=True) + self.loops[:, None]
        pairs = (_phi(rows + out_total + self.into) - _phi(rows + self.into)).sum(0)
        cells = (_phi(edges + self.out[:, None, :]) - _phi(edges)).sum((0, 2))
        cells = cells + (_phi(edges + self.into[:, :, None]) - _phi(edges)).sum((0, 1))
        # The cell of a group's own loops receives out, into and loops together. The sums over rows and columns have
        # counted it with out alone and with into alone, so these two terms are subtracted again.
        cells = cells - (_phi(loops + self.out) - _phi(loops)).sum(0) - (_phi(loops + self.into) - _phi(loops)).sum(0)
        cells = cells + (_phi(loops + self.out + self.into + self.loops[:, None]) - _phi(loops)).sum(0)
        return symbols + determinism * (pairs - cells)


class _PairIncreases:
    """The increase of the cost for every pair of clusters, updated after each merge.

    The increase of a pair (k, l) is that of its symbols, plus lambda times the gain of its row totals minus the gain of
    all pairs of cells that are merged. Cells are merged in rows (same target), in columns (same source), and in the
    corner, the four cells kk, kl, lk and ll. After a merge, the pairs that do not contain the merged cluster change
    only in the cells of the merged row and column; those of the merged cluster are recomputed.
    """

    def __init__(self, quotient: Quotient, determinism: float) -> None:
        self.emissions = quotient.emissions.clone()
        self.edges = quotient.transitions.clone()
        self.determinism = determinism
        clusters = quotient.n_clusters
        self.is_remaining = torch.ones(clusters, dtype=torch.bool)
        self.values = torch.stack([self._compute(cluster) for cluster in range(clusters)])
        self.values.fill_diagonal_(torch.inf)

    def smallest(self) -> tuple[int, int, float]:
        """Return the pair with the smallest increase (the first one of a tie), and this increase."""
        index = int(self.values.argmin())
        first, second = sorted(divmod(index, len(self.values)))
        return first, second, float(self.values[first, second])

    def merge(self, remaining: int, absorbed: int) -> None:
        """Merge cluster ``absorbed`` into ``remaining``."""
        # The increases of all other pairs lose the gains of the old cells, then get those of the merged cells.
        for cluster in (remaining, absorbed):
            self._add_cells(cluster, self.determinism)
        self.emissions[remaining] += self.emissions[absorbed]
        self.emissions[absorbed] = 0
        for view in (self.edges, self.edges.transpose(1, 2)):
            view[:, remaining] += view[:, absorbed]
            view[:, absorbed] = 0
        self._add_cells(remaining, -self.determinism)
        self.is_remaining[absorbed] = False
        updated = self._compute(remaining).masked_fill(~self.is_remaining, torch.inf)
        self.values[remaining] = self.values[:, remaining] = updated
        self.values[remaining, remaining] = torch.inf
        self.values[absorbed] = self.values[:, absorbed] = torch.inf

    def _add_cells(self, cluster: int, factor: float) -> None:
        """Add factor times the gain of the cells in one column and one row to the increases of all pairs."""
        for cells in (self.edges[:, :, cluster], self.edges[:, cluster, :]):  # [S, K]
            # Only the tokens and clusters with counts: quotient graphs are sparse, and a cell of 0 gains nothing.
            is_positive = cells > 0
            tokens, clusters = is_positive.any(1).nonzero()[:, 0], is_positive.any(0).nonzero()[:, 0]
            if len(clusters) > 1:
                self.values[clusters[:, None], clusters] += factor * _pair_gains(cells[tokens][:, clusters])

    def _compute(self, cluster: int) -> Tensor:
        """Return the increase for the pairs of one cluster with every other ``[K]``."""
        emissions = self.emissions[cluster]
        symbols = _gain(self.emissions.sum(1), emissions.sum()) - _gain(self.emissions, emissions).sum(1)
        totals = self.edges.sum(2)
        rows = _gain(totals, totals[:, cluster, None]).sum(0)
        cells = _shared_gains(self.edges.transpose(1, 2), cluster) + _shared_gains(self.edges, cluster)
        return symbols + self.determinism * (rows - cells - self._corner(cluster))

    def _corner(self, cluster: int) -> Tensor:
        """Return the gain of the corner of each pair of the cluster, beyond the gains of rows and columns ``[K]``."""
        # The four cells of the corner, each [S, K]: kk, kl, lk and ll for the cluster k and every l.
        kk = self.edges[:, cluster, cluster, None].expand(-1, len(self.is_remaining))
        kl, lk = self.edges[:, cluster, :], self.edges[:, :, cluster]
        ll = self.edges.diagonal(dim1=1, dim2=2)
        merged = _phi(kk + kl + lk + ll) + _phi(kk) + _phi(kl) + _phi(lk) + _phi(ll)
        return (merged - _phi(kk + lk) - _phi(kl + ll) - _phi(kk + kl) - _phi(lk + ll)).sum(0)


def _shared_gains(edges: Tensor, cluster: int) -> Tensor:
    """Return the gain of merging each cluster's column ``edges[:, :, k]`` with that of ``cluster``, ``[K]``.

    Only the cells where the column of ``cluster`` is not zero are summed, since a cell of 0 gains nothing.
    """
    token, other = edges[:, :, cluster].nonzero(as_tuple=True)
    return _gain(edges[token, other], edges[token, other, cluster][:, None]).sum(0)


def _pair_gains(cells: Tensor) -> Tensor:
    """Return the gain of each pair of columns, summed over the rows: ``[rows, r]`` -> ``[r, r]``."""
    single = _phi(cells).sum(0)
    merged = torch.zeros(len(single), len(single), dtype=cells.dtype)
    for block in cells.split(max(1, BLOCK_ELEMENTS // len(single) ** 2)):
        merged += _phi(block[:, :, None] + block[:, None, :]).sum(0)
    return merged - single[:, None] - single


def _gain(first: Tensor, second: Tensor) -> Tensor:
    """Return the change of the sum of phi when two cells are merged; the arguments broadcast."""
    return _phi(first + second) - _phi(first) - _phi(second)


def _phi(value: Tensor) -> Tensor:
    """Return x log x, which is 0 at 0."""
    return torch.xlogy(value, value)
