"""Distillation of a language model's trajectories into a probabilistic automaton.

The stages: over-clustering of the points on hidden state and next-token distribution, merging of the clusters by
the conditional Kullback-Leibler cost, soft labels from the teacher's distributions, and Baum-Welch refinement
with early stopping. Each can be switched off; where several candidates arise, the teacher's held-out strings
choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kdzoo.automata.baum_welch import (
    BaumWelch,
    baum_welch,
    forest,
    likeliest_states,
    objective,
    random_pfa_start,
)
from kdzoo.automata.clustering import kmeans_labels, nearest
from kdzoo.automata.counts import Quotient, added, count, pfa_from_counts
from kdzoo.automata.merging import MergePath, merge_path, refine
from kdzoo.automata.pfa import PFA
from kdzoo.automata.prefix_tree import PrefixTree
from kdzoo.automata.reader import learned_states
from kdzoo.automata.trajectories import FEATURES, Trajectories
from kdzoo.checks import choice, flag, integer, positive, probability
from kdzoo.errors import ConfigError, DataError
from kdzoo.language import trace_strings
from kdzoo.strings import Strings

PSEUDOCOUNT, SOFT_PSEUDOCOUNT = 1e-2, 1e-4  # for drawn symbols, and for a teacher's distributions
LEARNED = "learned"  # features
LEAST_CLUSTERS = 60  # before merging
CLUSTERS_PER_STATE = 5  # before merging
POINTS_PER_CLUSTER = 20  # at least so many, before merging
MERGE_CELLS = 1e7  # most cells of a quotient graph that is merged, unless the states alone need more
LARGE = 5e6  # prefixes times states from which Baum-Welch works in float32, and on fewer candidates
BLUR = 0.3  # share of the average in blurred starts
RACE = 10  # Baum-Welch steps after which the best random start goes on alone
REFIT = 5  # Baum-Welch steps on all strings, at most
ERRORS = 2  # standard errors by which it must be better as well
MARGIN = 1e-3  # nats per symbol by which an automaton that is not merged must be better


@dataclass(frozen=True)
class Options:
    """How to distil; each field is an argument of :func:`distill_states` of the same name."""

    states: int | None = None
    features: str = "both"
    merge: bool = True
    clusters: int | None = None
    soft: bool = True
    em: bool = True
    em_steps: int = 100
    determinism: float = 1.0
    penalty: float = 1.0
    restarts: int = 3
    pseudocount: float | None = None
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
        choice("features", self.features, (*FEATURES, LEARNED))
        for name in ("merge", "soft", "em"):
            flag(name, getattr(self, name))
        integer("em_steps", self.em_steps, 0)
        integer("restarts", self.restarts)
        integer("seed", self.seed, 0)
        positive("determinism", self.determinism)
        positive("penalty", self.penalty)
        if self.pseudocount is not None:
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

    The points of several teachers are clustered and merged teacher by teacher, as their hidden states have nothing
    in common; the automata that result run over the strings of all teachers, and the points that all of them
    tell alike are the clusters of a common graph that is merged again. So merging cannot be switched off.

    Args:
        teachers: what each teacher shows, all with one alphabet.
        weights: weight > 0 of each teacher's strings; None for 1 each.
        options:
            states: number of states K; None to choose it by the penalised objective of the merge path.
            features: what the points are clustered on: "hidden", "sqrt_probs" or "both"; "learned" is both with the
                states of a small recurrent network in place of hidden ones, see :mod:`kdzoo.automata.reader`.
            merge: cluster into more clusters first and merge them; otherwise k-means gives the states directly.
            clusters: number of clusters before merging; None for max(60, 5 K), at most one for 20 points, and fewer
                where the quotient graph would be too large.
            soft: use the teacher's next-token distributions in place of the sampled symbols in all counts.
            em: refine by Baum-Welch.
            em_steps: greatest number of Baum-Welch steps.
            determinism: weight > 0 of the transitions in the merge cost; more makes the automaton deterministic, and
                above 1 only merged automata compete.
            penalty: factor > 0 of the penalty that chooses the number of states.
            restarts: clusterings that compete, >= 1.
            pseudocount: weight > 0 added to each symbol of each state; None for 0.01, and for 0.0001 where a teacher's
                distributions say what is possible.
            held_out: share of the strings that chooses between candidates, in [0, 1); 0 judges on all strings.
            seed: seed of all draws.

    Raises:
        ConfigError: an option is out of range, or there are more states than points.
        DataError: the alphabets differ, or there is no teacher.
    """
    known = [one.name for one in fields(Options)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{name} is no option of distillation; the options: {', '.join(known)}")
    settings = Options(**options)
    shares = [1.0] * len(teachers) if weights is None else [positive("weights", float(one)) for one in weights]
    _check_teachers(teachers, shares, settings)
    return _Distiller(teachers, shares, settings).run()


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An automaton on trial, estimated without the held-out strings, and what led to it.

    Of a clustering, `labels` are the states of each teacher's points; a random start has none.
    """

    name: str
    pfa: PFA
    score: float
    labels: tuple[Tensor, ...] = ()
    path: MergePath | None = None
    em: BaumWelch | None = None


class _Distiller:
    """The stages, on one split of the teachers' strings."""

    def __init__(self, teachers: Sequence[Trajectories], weights: Sequence[float], options: Options) -> None:
        self.teachers, self.weights, self.options = teachers, weights, options
        self.features = [_features(one, options) for one in teachers]
        splits = [_split(len(one.strings), options.held_out, options.seed + i) for i, one in enumerate(teachers)]
        self.train = [one.select(part) for one, (part, _) in zip(teachers, splits, strict=True)]
        self.held_out = [one.select(part) for one, (_, part) in zip(teachers, splits, strict=True)]
        self.train_points = [one.points_of(part) for one, (part, _) in zip(teachers, splits, strict=True)]
        self.checked = self._trees(self.held_out, options.states or options.clusters or LEAST_CLUSTERS)
        self.stages: dict[str, float] = {}
        known = options.soft and all(one.next_probs is not None for one in teachers)
        self.pseudocount = options.pseudocount or (SOFT_PSEUDOCOUNT if known else PSEUDOCOUNT)

    def run(self) -> Distillation:
        """Return the best candidate of all stages, estimated anew from all strings."""
        merged = self._best([self._merged(i) for i in range(self.options.restarts)]) if self.options.merge else None
        states = merged.pfa.states if merged is not None else int(self.options.states or 1)
        found = [] if merged is None else [merged]
        if len(self.teachers) == 1 and (self.options.determinism <= 1 or merged is None):
            found.append(self._best([self._plain(i, states) for i in range(self.options.restarts)]))
        if self.options.em:
            found += self._refined(found, states)
        best = self._choose(found)
        pfa = self._refit(best)
        path = best.path if best.path is not None or merged is None else merged.path
        return Distillation(pfa, self._labels(best, pfa), best.name, self.stages, path, best.em)

    def _merged(self, restart: int) -> _Candidate:
        """Return a candidate from over-clustering and merging; several teachers are merged one by one first.

        The automata of the single teachers run over the strings of all of them. Points at which each automaton is
        in the same state as at others are one cluster of the common graph, which is then merged like any other.
        """
        labels = [self._kmeans(i, self._clusters(len(seen)), restart) for i, seen in enumerate(self.train_points)]
        if len(labels) == 1:
            return self._merge(labels, self.train, self.train_points, self.weights, noted=True)
        rows = zip(self.train, self.train_points, labels, strict=True)
        alone = [self._merge([own], [part], [points], [1.0]).pfa for part, points, own in rows]
        states = [torch.stack([likeliest_states(pfa, seen.strings) for pfa in alone]) for seen in self.teachers]
        together = torch.unique(torch.cat(states, 1), dim=1, return_inverse=True)[1]
        common = together.split([seen.n_points for seen in self.teachers])
        return self._merge(common, self.train, self.train_points, self.weights, noted=True)

    def _merge(
        self,
        labels: Sequence[Tensor],
        train: Sequence[Trajectories],
        points: Sequence[Tensor],
        weights: Sequence[float],
        noted: bool = False,
    ) -> _Candidate:
        """Return a candidate from clusters that the given teachers share, merged to as many states as wanted."""
        options = self.options
        clusters = max(int(one.max()) for one in labels) + 1
        quotient = self._count(labels, train, points, weights, clusters)
        least = min(options.states or 1, clusters)
        path = merge_path(quotient, n_states=least, determinism=options.determinism, penalty=options.penalty)
        greedy = path.groups(least if options.states else path.best())
        groups = refine(quotient, greedy, determinism=options.determinism)
        automata = [
            one.to_pfa(self.pseudocount) for one in (quotient, quotient.merged(greedy), quotient.merged(groups))
        ]
        score = 0.0
        if noted:
            stages = ("clusters", "merged", "refined")
            score = [self._score(name, pfa) for name, pfa in zip(stages, automata, strict=True)][-1]
        return _Candidate("refined", automata[-1], score, tuple(groups[one] for one in labels), path)

    def _plain(self, restart: int, states: int) -> _Candidate:
        """Return a candidate whose states are clusters."""
        labels = self._kmeans(0, states, restart)
        quotient = self._count([labels], self.train, self.train_points, self.weights, int(labels.max()) + 1)
        pfa = quotient.to_pfa(self.pseudocount)
        return _Candidate("kmeans", pfa, self._score("kmeans", pfa), (labels,))

    def _refined(self, found: Sequence[_Candidate], states: int) -> list[_Candidate]:
        """Return the candidates after Baum-Welch, and others from blurred and random starts.

        Blurred and random automata are not deterministic, so none is tried where determinism is asked for. Where
        a step takes long, only the leader is refined, as it is and blurred.
        """
        options = self.options
        trees = self._trees(self.train, states)
        best = self._best(found)
        large = sum(tree.n_nodes for tree in trees) * states > LARGE
        refined = [self._em(one, trees) for one in ([best] if large else found)]
        if options.determinism > 1:
            return refined
        clusterings = [one for one in found if one.name == "kmeans"] or [best]
        blurred = [
            _blurred(self._count(one.labels, self.train, self.train_points, self.weights, one.pfa.states))
            for one in clusterings
        ]
        refined += [self._em(_Candidate("blurred", pfa, 0.0, ()), trees) for pfa in blurred]
        if not large:
            vocab = self.teachers[0].vocab_size
            starts = [random_pfa_start(vocab, states, options.seed + i) for i in range(options.restarts)]
            raced = [
                baum_welch(one, trees, max_iter=min(RACE, options.em_steps), pseudocount=self.pseudocount)
                for one in starts
            ]
            winner = max(raced, key=lambda one: objective(one.pfa, self.checked)).pfa
            refined.append(self._em(_Candidate("random", winner, 0.0), trees))
        return refined

    def _em(self, start: _Candidate, trees: list[PrefixTree]) -> _Candidate:
        """Return a candidate after Baum-Welch with early stopping."""
        options = self.options
        run = baum_welch(
            start.pfa,
            trees,
            held_out=self.checked,
            max_iter=options.em_steps,
            pseudocount=self.pseudocount,
            dtype=_dtype(trees, start.pfa.states),
        )
        name = f"{start.name}+em"
        return _Candidate(name, run.pfa, self._score(name, run.pfa), start.labels, start.path, run)

    def _refit(self, best: _Candidate) -> PFA:
        """Return the candidate estimated from all strings: its counts, or a few more Baum-Welch steps."""
        if best.em is None:
            quotient = self._count(best.labels, self.teachers, None, self.weights, best.pfa.states)
            return quotient.to_pfa(self.pseudocount)
        trees = self._trees(self.teachers, best.pfa.states)
        steps = min(best.em.steps, REFIT)
        dtype = _dtype(trees, best.pfa.states)
        return baum_welch(best.pfa, trees, max_iter=steps, pseudocount=self.pseudocount, dtype=dtype).pfa

    def _labels(self, best: _Candidate, pfa: PFA) -> Tensor:
        """Return the state of each point: its cluster's, or after Baum-Welch the likeliest given the prefix."""
        if best.em is None:
            return torch.cat(best.labels)
        return torch.cat([likeliest_states(pfa, one.strings) for one in self.teachers])

    def _choose(self, found: Sequence[_Candidate]) -> _Candidate:
        """Return the best candidate; a merged one, whose states are few and sharp, unless another is clearly better.

        That is, by more than the margin and by more than two standard errors of the mean over the held-out strings.
        """
        best = self._best(found)
        merged = [one for one in found if one.path is not None]
        if not merged or best.path is not None:
            return best
        leader = self._best(merged)
        gain = self._by_string(best.pfa) - self._by_string(leader.pfa)
        error = float(gain.std() * len(gain) ** 0.5) if len(gain) > 1 else torch.inf
        symbols = sum(tree.total for tree in self.checked)
        return best if float(gain.sum()) > max(MARGIN * symbols, ERRORS * error) else leader

    def _by_string(self, pfa: PFA) -> Tensor:
        """Return the objective of each held-out string, float64 [n], their sum that of all symbols."""
        return torch.cat(
            [
                weight * _objectives(pfa, seen, self.options.soft)
                for seen, weight in zip(self.held_out, self.weights, strict=True)
            ]
        )

    def _best(self, candidates: Sequence[_Candidate]) -> _Candidate:
        return max(candidates, key=lambda one: one.score)

    def _score(self, name: str, pfa: PFA) -> float:
        """Return the held-out objective of an automaton, and note the best of its stage."""
        value = objective(pfa, self.checked)
        self.stages[name] = max(value, self.stages.get(name, -torch.inf))
        return value

    def _clusters(self, n_points: int) -> int:
        """Return the number of clusters before merging for one teacher."""
        options = self.options
        states = options.states or 1
        if options.clusters is not None:
            return min(options.clusters, n_points)
        most = min(n_points // POINTS_PER_CLUSTER, int((MERGE_CELLS / self.teachers[0].vocab_size) ** 0.5))
        return max(states, min(max(LEAST_CLUSTERS, CLUSTERS_PER_STATE * states), most), 1)

    def _kmeans(self, teacher: int, clusters: int, restart: int) -> Tensor:
        """Return the clusters of a teacher's points; those of held-out strings go to the nearest centre.

        So no cluster is without strings to learn from.
        """
        points, seed = self.features[teacher], self.options.seed + restart
        if len(self.train_points[teacher]) < clusters:
            return kmeans_labels(points, clusters, seed=seed)
        seen = points[self.train_points[teacher]]
        found = kmeans_labels(seen, clusters, seed=seed)
        sums = torch.zeros(int(found.max()) + 1, seen.shape[1]).index_add_(0, found, seen)
        labels = nearest(points, sums / found.bincount()[:, None])
        labels[self.train_points[teacher]] = found
        return labels

    def _count(
        self,
        labels: Sequence[Tensor],
        data: Sequence[Trajectories],
        points: Sequence[Tensor] | None,
        weights: Sequence[float],
        clusters: int,
    ) -> Quotient:
        """Return the counts of clusters that the teachers share, at the given points of each, or at all."""
        parts = labels if points is None else [one[part] for one, part in zip(labels, points, strict=True)]
        pairs = zip(data, parts, strict=True)
        return added([count(seen, part, n_clusters=clusters, soft=self.options.soft) for seen, part in pairs], weights)

    def _trees(self, data: Sequence[Trajectories], states: int) -> list[PrefixTree]:
        """Return the prefix trees of all teachers' strings together."""
        strings = Strings.cat([one.strings for one in data])
        weights = [torch.full((len(one.strings),), w).double() for one, w in zip(data, self.weights, strict=True)]
        probs = [one.next_probs for one in data if one.next_probs is not None] if self.options.soft else []
        together = torch.cat(probs) if len(probs) == len(data) else None
        return forest(strings, states, weights=torch.cat(weights), next_probs=together)


def _objectives(pfa: PFA, seen: Trajectories, soft: bool) -> Tensor:
    """Return the objective of each string, float64 [n]."""
    probs = trace_strings(pfa, seen.strings).log_probs.double().exp()
    if soft and seen.next_probs is not None:
        values = torch.xlogy(seen.next_probs.double(), probs).sum(1)
    else:
        values = probs.gather(1, seen.symbols()[:, None])[:, 0].log()
    string = torch.arange(len(seen.strings)).repeat_interleave(seen.strings.lengths + 1)
    return torch.zeros(len(seen.strings), dtype=torch.float64).index_add_(0, string, values)


def _features(seen: Trajectories, options: Options) -> Tensor:
    """Return the points [N, d] to be clustered."""
    if options.features == LEARNED:
        return replace(seen, hidden=learned_states(seen, seed=options.seed)).features("both")
    return seen.features(options.features)


def _blurred(quotient: Quotient) -> PFA:
    """Return a non-deterministic start: the quotient's automaton with a share of the average mixed into each row."""
    occupied = quotient.emissions.sum(1) / quotient.weight
    symbols = quotient.emissions / quotient.emissions.sum(1, keepdim=True).clamp_min(1e-300)
    average = (occupied @ symbols).expand_as(symbols)
    by_token = quotient.transitions.sum(1, keepdim=True)
    into = torch.where(by_token.sum(2, keepdim=True) > 0, by_token, occupied)
    into = into / into.sum(2, keepdim=True)
    edges = quotient.transitions.sum(2, keepdim=True)
    return pfa_from_counts(
        quotient.starts / quotient.starts.sum() + BLUR * occupied,
        (1 - BLUR) * symbols + BLUR * average,
        quotient.transitions + BLUR * edges * into,
        into,
    )


def _dtype(trees: Sequence[PrefixTree], states: int) -> torch.dtype:
    return torch.float32 if sum(tree.n_nodes for tree in trees) * states > LARGE else torch.float64


def _split(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the strings to learn from and to judge by; all in both where none can be held out."""
    held_out = min(max(1, round(n * share)), n - 1) if share else 0
    if held_out == 0:
        return torch.arange(n), torch.arange(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _check_teachers(teachers: Sequence[Trajectories], weights: Sequence[float], options: Options) -> None:
    if not teachers:
        raise DataError("teachers must hold at least one set of trajectories, got none")
    if len(weights) != len(teachers):
        raise ConfigError(f"weights must hold one number for each of {len(teachers)} teachers, got {len(weights)}")
    sizes = [one.vocab_size for one in teachers]
    if len(set(sizes)) > 1:
        raise DataError(f"all teachers must have the same vocab_size, got {sizes}")
    if len(teachers) > 1 and not options.merge:
        raise ConfigError("merge must be true for several teachers, whose clusters have to be brought together")
    points = min(one.n_points for one in teachers)
    for name in ("states", "clusters"):
        wanted = getattr(options, name)
        if wanted is not None and wanted > points:
            raise ConfigError(f"{name} must be at most the number of points {points}, got {wanted}")
