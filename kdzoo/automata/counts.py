"""Counts of a clustered set of trajectories: the weighted quotient graph, and the automaton that it defines."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.automata.traced_sequences import TracedSequences


@dataclass(frozen=True, eq=False)
class Quotient:
    """The quotient graph of K clusters: how often each symbol and each edge was seen.

    Args:
        starts: weight of the strings that start in each cluster, float64 [K].
        emissions: weight of each symbol after the points of each cluster, the end last, float64 [K, V].
        transitions: weight of the edges from cluster k to l with token a, at [a, k, l], float64 [S, K, K].
    """

    starts: Tensor
    emissions: Tensor
    transitions: Tensor

    @property
    def n_clusters(self) -> int:
        """Number of clusters K."""
        return len(self.starts)

    @property
    def weight(self) -> float:
        """Weight of all points together."""
        return float(self.emissions.sum())

    def merged(self, groups: Tensor) -> "Quotient":
        """Return the quotient in which cluster k belongs to groups[k], int64 [K] without gaps."""
        member = torch.nn.functional.one_hot(groups).double()
        return Quotient(
            member.T @ self.starts, member.T @ self.emissions, torch.matmul(member.T, self.transitions @ member)
        )

    def to_pfa(self, pseudocount: float = 0.0) -> PFA:
        r"""Return the automaton :math:`P(a, l | k) = P(a | k) P(l | k, a)` of the relative frequencies.

        A pair (k, a) that has no edge leads to the cluster that token a enters most often: then every string
        keeps a probability wherever the emissions or the pseudocount allow it, and each row stays sparse.

        Args:
            pseudocount: weight added to every symbol of every cluster, >= 0.
        """
        emissions = self.emissions + pseudocount
        return pfa_from_counts(self.starts, emissions, self.transitions, fallback_targets(self.transitions))


def count(
    trajectories: TracedSequences,
    labels: Tensor,
    *,
    n_clusters: int | None = None,
    soft: bool = True,
    weights: Tensor | None = None,
) -> Quotient:
    """Return the quotient graph of trajectories whose points are labelled.

    Args:
        trajectories: the strings and their next-token distributions.
        labels: cluster of each point, int64 [N].
        n_clusters: K; None for the greatest label + 1.
        soft: take the emissions from the teacher's next-token distributions where there are some, in place of
            the sampled symbols: the same mean with less variance.
        weights: weight of each string [n]; None for 1.
    """
    clusters = int(labels.max()) + 1 if n_clusters is None else n_clusters
    strings, vocab = trajectories.strings, trajectories.vocab_size
    per_string = torch.ones(len(strings), dtype=torch.float64) if weights is None else weights.double()
    per_point = per_string.repeat_interleave(strings.lengths + 1)
    source, target, token = strings.edges()

    starts = torch.zeros(clusters, dtype=torch.float64).index_add_(0, labels[strings.first_prefixes()], per_string)
    if soft and trajectories.next_probs is not None:
        emissions = torch.zeros(clusters, vocab, dtype=torch.float64)
        emissions.index_add_(0, labels, trajectories.next_probs.double() * per_point[:, None])
    else:
        emissions = _histogram(labels * vocab + trajectories.symbols(), per_point, (clusters, vocab))
    key = (token * clusters + labels[source]) * clusters + labels[target]
    transitions = _histogram(key, per_point[source], (vocab - 1, clusters, clusters))
    return Quotient(starts, emissions, transitions)


def weighted_sum(parts: Sequence[Quotient], weights: Sequence[float] | None = None) -> Quotient:
    """Return the sum of quotients of the same clusters, each times its weight (None: 1)."""
    pairs = list(zip(parts, weights or [1.0] * len(parts), strict=True))
    return Quotient(
        torch.stack([part.starts * weight for part, weight in pairs]).sum(0),
        torch.stack([part.emissions * weight for part, weight in pairs]).sum(0),
        torch.stack([part.transitions * weight for part, weight in pairs]).sum(0),
    )


def pfa_from_counts(starts: Tensor, emissions: Tensor, transitions: Tensor, fallback: Tensor) -> PFA:
    """Return the automaton of expected or observed counts.

    Args:
        starts: weight of the starts in each state [K].
        emissions: weight of the symbols of each state, the end last [K, V].
        transitions: weight of the edges [S, K, K]; only their shares within each (a, k) count.
        fallback: the distribution P(l | k, a) of the pairs without an edge [S, K, K] or [S, 1, K].
    """
    total = emissions.sum(1, keepdim=True)
    symbols = torch.where(total > 0, emissions / total, torch.full_like(emissions, 1 / emissions.shape[1]))
    pairs = transitions.sum(2, keepdim=True)
    successors = torch.where(pairs > 0, transitions / pairs, fallback)
    joint = symbols.T[:-1, :, None] * successors
    scale = joint.sum((0, 2)) + symbols[:, -1]  # 1 up to rounding
    return PFA.from_parameters(starts / starts.sum(), joint / scale[:, None], symbols[:, -1] / scale)


def fallback_targets(transitions: Tensor) -> Tensor:
    """Return, one-hot [S, 1, K], the state that each token enters most often."""
    n_states = transitions.shape[-1]
    return torch.nn.functional.one_hot(transitions.sum(1).argmax(1), n_states).double()[:, None, :]


def _histogram(key: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape).numel()
    return torch.bincount(key, weights, minlength=size).double().reshape(shape)  # of no keys it is float32
