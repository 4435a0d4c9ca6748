"""Distillation of a language model's trajectories into a probabilistic automaton.

The stages: over-clustering of the points on hidden state and next-token distribution, merging of the clusters by
the conditional Kullback-Leibler cost, soft labels from the teacher's distributions, and Baum-Welch refinement
with early stopping. Each can be switched off; where several candidates arise, the teacher's held-out strings
choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdzoo.automata.baum_welch import BaumWelch, baum_welch, objective, trees_of
from kdzoo.automata.clustering import kmeans_labels
from kdzoo.automata.counts import Quotient, count, union
from kdzoo.automata.merging import MergePath, merge_path, refine
from kdzoo.automata.pfa import PFA
from kdzoo.automata.trajectories import FEATURES, Trajectories
from kdzoo.checks import choice, flag, integer, positive, probability
from kdzoo.errors import ConfigError, DataError
from kdzoo.strings import Strings

POINTS_PER_CLUSTER = 20  # at least so many points for each cluster before merging
FLOAT32_ABOVE = 5e7  # points times states from which Baum-Welch works in float32


@dataclass(frozen=True)
class Options:
    """How to distil; each field is an argument of :func:`distill_states` of the same name."""

    states: int | None = None
    features: str = "both"
    merge: bool = True
    clusters: int | None = None
    soft: bool = True
    em: bool = True
    em_steps: int = 50
    determinism: float = 1.0
    penalty: float = 1.0
    restarts: int = 3
    pseudocount: float = 0.01
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.states is not None:
            integer("states", self.states)
        if self.clusters is not None:
            integer("clusters", self.clusters)
            if self.states is not None and self.clusters < self.states:
                raise ConfigError(f"clusters must be at least states = {self.states}, got {self.clusters}")
        if self.states is None and not self.merge:
            raise ConfigError("states must be given where merge is false, got None")
        choice("features", self.features, FEATURES)
        for name in ("merge", "soft", "em"):
            flag(name, getattr(self, name))
        integer("em_steps", self.em_steps, 0)
        integer("restarts", self.restarts)
        integer("seed", self.seed, 0)
        positive("determinism", self.determinism)
        positive("penalty", self.penalty)
        positive("pseudocount", self.pseudocount)
        probability("held_out", self.held_out)


@dataclass(frozen=True, eq=False)
class Distillation:
    """The result of :func:`distill_states`.

    Args:
        pfa: the automaton, estimated from all strings.
        labels: its state at each point, as clustered, int64 [N]; of several teachers, one after the other.
        chosen: name of the stage that the held-out strings chose.
        stages: held-out objective of each stage, in nats per symbol: the mean log-probability of the next symbol,
            under the teacher's distributions where they are known. Estimated without the held-out strings.
        path: the merge path of the chosen candidate, or of the best merged one; None without merging.
        em: the Baum-Welch run that led to `pfa`, or the best one; None without it.
    """

    pfa: PFA
    labels: Tensor
    chosen: str
    stages: dict[str, float]
    path: MergePath | None = None
    em: BaumWelch | None = None

    @property
    def states(self) -> int:
        """Number of states of the automaton."""
        return self.pfa.states


def distill_states(
    sequences: Strings | Sequence[Any], hidden: Any = None, next_probs: Any = None, **options: Any
) -> Distillation:
    """Distil the strings of a language model, with what it held at their points, into an automaton.

    Args:
        sequences: strings sampled from the teacher: Strings, or a list of n sequences of tokens 0..S-1.
        hidden: hidden states at the N points (a string of m tokens has m + 1): [N, H], or a list of [m + 1, H].
        next_probs: next-token distributions [N, V] with the end last, or a list; None where unknown.
        options: see :func:`distill`; also vocab_size = V, needed where the strings do not show all tokens.

    Returns:
        The automaton with labels, the held-out objective of each stage and the path of merging.

    Raises:
        ConfigError: an option is out of range, or there are more states than points.
        DataError: the arrays do not fit the sequences, or a token is outside the alphabet.

    Example:
        >>> import torch
        >>> sequences = [[0, 1] * (number % 3) for number in range(60)]
        >>> hidden = [torch.tensor([[1.0], [-1.0]] * 4)[: len(one) + 1] for one in sequences]
        >>> distill_states(sequences, hidden, states=2).pfa.states
        2
    """
    vocab_size = options.pop("vocab_size", None)
    return distill([Trajectories.of(sequences, hidden, next_probs, vocab_size=vocab_size)], **options)


def distill(teachers: Sequence[Trajectories], weights: Sequence[float] | None = None, **options: Any) -> Distillation:
    """Distil the trajectories of one teacher, or of several with weights, into one automaton.

    The points of several teachers are clustered teacher by teacher, as their hidden states have nothing in common;
    merging then brings together clusters of all of them, so it cannot be switched off.

    Args:
        teachers: what each teacher shows, all with one alphabet.
        weights: weight > 0 of each teacher's strings; None for 1 each.
        options:
            states: number of states K; None to choose it by the penalised objective of the merge path.
            features: what the points are clustered on: "hidden", "sqrt_probs" or "both".
            merge: cluster into more clusters first and merge them; otherwise k-means gives the states directly.
            clusters: number of clusters before merging; None for max(60, 5 K), at most one for 20 points.
            soft: use the teacher's next-token distributions in place of the sampled symbols in all counts.
            em: refine by Baum-Welch.
            em_steps: greatest number of Baum-Welch steps.
            determinism: weight > 0 of the transitions in the merge cost; more makes the automaton deterministic.
            penalty: factor > 0 of the penalty that chooses the number of states.
            restarts: clusterings that compete, >= 1.
            pseudocount: weight > 0 added to each symbol of each state.
            held_out: share of the strings that chooses between candidates, in [0, 1); 0 judges on all strings.
            seed: seed of all draws.

    Raises:
        ConfigError: an option is out of range, or there are more states than points.
        DataError: the alphabets differ, or there is no teacher.
    """
    settings = Options(**options)
    shares = [1.0] * len(teachers) if weights is None else [positive("weights", float(one)) for one in weights]
    _check_teachers(teachers, shares, settings)
    return _Distiller(list(teachers), shares, settings).run()


@dataclass(eq=False)
class _Candidate:
    """An automaton on trial: the quotient's label for each point of each teacher, and how it was refined."""

    name: str
    labels: list[Tensor]
    pfa: PFA
    score: float
    path: MergePath | None = None
    em: BaumWelch | None = None


@dataclass(eq=False)
class _Distiller:
    teachers: list[Trajectories]
    weights: list[float]
    options: Options
    stages: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        splits = [
            _split(len(one.strings), self.options.held_out, self.options.seed + i)
            for i, one in enumerate(self.teachers)
        ]
        self.parts = [one.select(train) for one, (train, _) in zip(self.teachers, splits, strict=True)]
        held = [one.select(rest) for one, (_, rest) in zip(self.teachers, splits, strict=True)]
        self.train_points = [one.points_of(train) for one, (train, _) in zip(self.teachers, splits, strict=True)]
        self.train, self.train_weights = _pool(self.parts, self.weights)
        self.held, self.held_weights = _pool(held, self.weights)

    def run(self) -> Distillation:
        features = [one.features(self.options.features) for one in self.teachers]
        merged = self._best(
            [self._merged(features, r) for r in range(self.options.restarts)] if self.options.merge else []
        )
        plain = None
        states = self.options.states or (merged.pfa.states if merged else 1)
        if len(self.teachers) == 1:
            plain = self._best([self._plain(features[0], states, r) for r in range(self.options.restarts)])
        candidates = [one for one in (merged, plain) if one is not None]
        if self.options.em:
            candidates += [self._refined(one) for one in candidates]
        best = self._best(candidates)
        pfa = self._refit(best)
        offsets = torch.cat(best.labels)
        return Distillation(pfa, offsets, best.name, self.stages, (merged.path if merged else None), best.em)

    def _best(self, candidates: list[_Candidate]) -> Any:
        for one in candidates:
            self.stages[one.name] = max(one.score, self.stages.get(one.name, -torch.inf))
        return max(candidates, key=lambda one: one.score) if candidates else None

    def _merged(self, features: list[Tensor], restart: int) -> _Candidate:
        o = self.options
        clusters, sizes = [], []
        for x in features:
            k = min(o.clusters or max(60, 5 * (o.states or 0)), max(o.states or 1, len(x) // POINTS_PER_CLUSTER))
            clusters.append(kmeans_labels(x, k, seed=o.seed + restart))
            sizes.append(int(clusters[-1].max()) + 1)
        quotient = self._quotient(clusters, sizes, self.parts)
        self._score("clusters", quotient)
        path = merge_path(
            quotient, n_states=min(o.states or 1, quotient.n_clusters), determinism=o.determinism, penalty=o.penalty
        )
        groups = path.groups(o.states or path.best())
        merged = quotient.merged(groups)
        self._score("merged", merged)
        groups = refine(quotient, groups, determinism=o.determinism)
        labels = [part[c] for part, c in zip(groups.split(sizes), clusters, strict=True)]
        pfa = quotient.merged(groups).to_pfa(o.pseudocount)
        return _Candidate("refined", labels, pfa, self._value(pfa), path)

    def _plain(self, features: Tensor, states: int, restart: int) -> _Candidate:
        labels = kmeans_labels(features, states, seed=self.options.seed + restart)
        pfa = self._quotient([labels], [int(labels.max()) + 1], self.parts).to_pfa(self.options.pseudocount)
        return _Candidate("kmeans", [labels], pfa, self._value(pfa))

    def _quotient(self, labels, sizes, parts) -> Quotient:
        if parts is self.parts:
            labels = [l[p] for l, p in zip(labels, self.train_points, strict=True)]
        return union(
            [
                count(part, l, n_clusters=k, soft=self.options.soft)
                for part, l, k in zip(parts, labels, sizes, strict=True)
            ],
            self.weights,
        )

    def _score(self, name, quotient):
        v = self._value(quotient.to_pfa(self.options.pseudocount))
        self.stages[name] = max(v, self.stages.get(name, -torch.inf))

    def _value(self, pfa):
        return objective(pfa, trees_of(self.held, pfa.states, soft=self.options.soft, weights=self.held_weights))

    def _refined(self, c: _Candidate) -> _Candidate:
        o = self.options
        em = baum_welch(
            c.pfa,
            self.train,
            held_out=self.held,
            soft=o.soft,
            weights=self.train_weights,
            max_iter=o.em_steps,
            pseudocount=o.pseudocount,
            dtype=self._dtype(c.pfa),
        )
        return _Candidate(c.name + "+em", c.labels, em.pfa, em.held_out[em.steps], c.path, em)

    def _dtype(self, pfa):
        return torch.float32 if self.train.n_points * pfa.states > FLOAT32_ABOVE else torch.float64

    def _refit(self, best: _Candidate) -> PFA:
        o = self.options
        k = max(int(l.max()) for l in best.labels) + 1
        parts = [count(t, l, n_clusters=k, soft=o.soft) for t, l in zip(self.teachers, best.labels, strict=True)]
        q = Quotient(
            *(
                sum(w * getattr(p, n) for p, w in zip(parts, self.weights, strict=True))
                for n in ("starts", "emissions", "transitions")
            )
        )
        pfa = q.to_pfa(o.pseudocount)
        if best.em is not None and best.em.steps:
            data, w = _pool(self.teachers, self.weights)
            pfa = baum_welch(
                pfa,
                data,
                soft=o.soft,
                weights=w,
                max_iter=best.em.steps,
                tol=1e-300,
                pseudocount=o.pseudocount,
                dtype=self._dtype(pfa),
            ).pfa
        return pfa


def _pool(parts, weights):
    probs = None if any(p.next_probs is None for p in parts) else torch.cat([p.next_probs for p in parts])
    strings = Strings.cat([p.strings for p in parts])
    per = torch.cat(
        [torch.full((len(p.strings),), w, dtype=torch.float64) for p, w in zip(parts, weights, strict=True)]
    )
    hidden = None if probs is not None else torch.zeros(strings.n_points, 1)
    return Trajectories(strings, parts[0].vocab_size, hidden, probs), per


def _split(n, share, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    k = round(n * share)
    if share and k == 0 and n > 1:
        k = 1
    if k == 0:
        return torch.arange(n), torch.arange(n)
    return order[k:].sort().values, order[:k].sort().values


def _check_teachers(teachers, weights, o):
    pass
