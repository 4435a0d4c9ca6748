"""Counts over clustered prefixes: the weighted quotient graph, and the automaton that it defines.

Notation: N prefixes of n strings, K clusters or states, S tokens, V = S + 1 symbols, the end of a string last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.automata.traced_sequences import TracedSequences


@dataclass(frozen=True, eq=False)
class Quotient:
    """The quotient graph of K clusters: how often each symbol and each edge occurs.

    Args:
        starts: Weight of the strings that start in each cluster, float64 ``[K]``.
        emissions: Weight of each symbol after the prefixes of each cluster, the end last, float64 ``[K, V]``.
        transitions: Weight of the edges from cluster k to l with token a, at ``[a, k, l]``, float64 ``[S, K, K]``.
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
        """Total weight of all prefixes, which is that of all symbols."""
        return float(self.emissions.sum())

    def merged(self, groups: Tensor) -> "Quotient":
        """Return the quotient in which cluster k belongs to group ``groups[k]``.

        Args:
            groups: Group of each cluster, int64 ``[K]``, numbered from 0 without gaps.
        """
        member = torch.nn.functional.one_hot(groups).double()
        return Quotient(
            member.T @ self.starts, member.T @ self.emissions, torch.matmul(member.T, self.transitions @ member)
        )

    def to_pfa(self, pseudocount: float = 0.0) -> PFA:
        r"""Return the automaton :math:`P(a, l | k) = P(a | k) P(l | k, a)` of the relative frequencies.

        A pair (k, a) without an edge leads to the cluster that token a enters most often. Every string then has a
        positive probability wherever the emissions or the pseudocount allow it, and each row stays sparse.

        Args:
            pseudocount: Weight added to every symbol of every cluster, >= 0.
        """
        emissions = self.emissions + pseudocount
        return pfa_from_counts(self.starts, emissions, self.transitions, fallback_targets(self.transitions))

    def to_blurred_pfa(self, share: float) -> PFA:
        """Return the automaton with a share of the average state mixed into each row.

        Expectation maximisation never leaves a zero; from this start it can reach every transition.

        Args:
            share: Share of the average in the emissions, and weight of the average relative to the edges of each
                pair (k, a), > 0.
        """
        occupied = self.emissions.sum(1) / self.weight
        # A tiny number in place of 0: a cluster without symbols then has zeros, not NaN.
        symbols = self.emissions / self.emissions.sum(1, keepdim=True).clamp_min(1e-300)
        average = (occupied @ symbols).expand_as(symbols)
        by_token = self.transitions.sum(1, keepdim=True)
        into = torch.where(by_token.sum(2, keepdim=True) > 0, by_token, occupied)
        into = into / into.sum(2, keepdim=True)
        edges = self.transitions.sum(2, keepdim=True)
        return pfa_from_counts(
            self.starts / self.starts.sum() + share * occupied,
            (1 - share) * symbols + share * average,
            self.transitions + share * edges * into,
            into,
        )


def count(
    traced: TracedSequences,
    labels: Tensor,
    *,
    n_clusters: int | None = None,
    soft: bool = True,
    weights: Tensor | None = None,
) -> Quotient:
    """Return the quotient graph of traced sequences whose prefixes are labelled.

    Args:
        traced: The strings and their next-token distributions.
        labels: Cluster of each prefix, int64 ``[N]``.
        n_clusters: Number of clusters K; None for the largest label + 1.
        soft: Take the emissions from the teacher's next-token distributions, if there are any, in place of the
            sampled symbols: the same expectation with less variance. Transitions are always those of the sampled
            tokens, as nothing is known of the prefixes that were not sampled.
        weights: Weight of each string ``[n]``; None for 1.
    """
    clusters = int(labels.max()) + 1 if n_clusters is None else n_clusters
    strings, vocab = traced.strings, traced.vocab_size
    per_string = torch.ones(len(strings), dtype=torch.float64) if weights is None else weights.double()
    per_prefix = per_string.repeat_interleave(strings.lengths + 1)
    source, target, token = strings.edges()

    starts = torch.zeros(clusters, dtype=torch.float64).index_add_(0, labels[strings.first_prefixes()], per_string)
    if soft and traced.next_probs is not None:
        emissions = torch.zeros(clusters, vocab, dtype=torch.float64)
        emissions.index_add_(0, labels, traced.next_probs.double() * per_prefix[:, None])
    else:
        emissions = _histogram(labels * vocab + traced.symbols(), per_prefix, (clusters, vocab))
    # Each edge as one number, so that a single histogram counts all (token, source, target).
    key = (token * clusters + labels[source]) * clusters + labels[target]
    transitions = _histogram(key, per_prefix[source], (vocab - 1, clusters, clusters))
    return Quotient(starts, emissions, transitions)


def weighted_sum(parts: Sequence[Quotient], weights: Sequence[float] | None = None) -> Quotient:
    """Return the sum of quotients of the same clusters, each times its weight.

    Args:
        parts: At least one quotient, all with K clusters and S tokens.
        weights: Weight of each quotient; None for 1.
    """
    pairs = list(zip(parts, weights or [1.0] * len(parts), strict=True))
    return Quotient(
        torch.stack([part.starts * weight for part, weight in pairs]).sum(0),
        torch.stack([part.emissions * weight for part, weight in pairs]).sum(0),
        torch.stack([part.transitions * weight for part, weight in pairs]).sum(0),
    )


def pfa_from_counts(starts: Tensor, emissions: Tensor, transitions: Tensor, fallback: Tensor) -> PFA:
    """Return the automaton of expected or observed counts; a state without counts is uniform.

    Args:
        starts: Weight of the starts in each state ``[K]``.
        emissions: Weight of the symbols of each state, the end last ``[K, V]``.
        transitions: Weight of the edges ``[S, K, K]``; only their shares within each (a, k) count.
        fallback: The distribution P(l | k, a) of the pairs without an edge ``[S, K, K]`` or ``[S, 1, K]``.
    """
    total = emissions.sum(1, keepdim=True)
    symbols = torch.where(total > 0, emissions / total, torch.full_like(emissions, 1 / emissions.shape[1]))
    pairs = transitions.sum(2, keepdim=True)
    successors = torch.where(pairs > 0, transitions / pairs, fallback)
    joint = symbols.T[:-1, :, None] * successors
    # 1 up to rounding. With many tokens and states the rounding would add up beyond what PFA accepts as a sum of 1.
    scale = joint.sum((0, 2)) + symbols[:, -1]
    return PFA.from_parameters(starts / starts.sum(), joint / scale[:, None], symbols[:, -1] / scale)


def fallback_targets(transitions: Tensor) -> Tensor:
    """Return, one-hot ``[S, 1, K]``, the state that each token enters most often."""
    n_states = transitions.shape[-1]
    return torch.nn.functional.one_hot(transitions.sum(1).argmax(1), n_states).double()[:, None, :]


def _histogram(key: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape).numel()
    # The cast matters where there are no keys at all: bincount then returns float32.
    return torch.bincount(key, weights, minlength=size).double().reshape(shape)
