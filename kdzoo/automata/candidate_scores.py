"""The stages from trajectories to an automaton, on one split of the strings, and the choice between what they give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdzoo.automata.baum_welch import (
    BaumWelch,
    baum_welch,
    bounded_prefix_trees,
    most_likely_states,
    objective,
    random_pfa_start,
)
from kdzoo.automata.clustering import kmeans_labels, nearest
from kdzoo.automata.counts import Quotient, count, pfa_from_counts, weighted_sum
from kdzoo.automata.learned_states import learned_states
from kdzoo.automata.merging import MergePath, merge_path, refine
from kdzoo.automata.options import LEARNED, DistillationOptions
from kdzoo.automata.pfa import PFA
from kdzoo.automata.prefix_tree import PrefixTree
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.text.language_model import trace_token_sequences
from kdzoo.text.token_sequences import TokenSequences

PSEUDOCOUNT, SOFT_PSEUDOCOUNT = 1e-2, 1e-4  # for drawn symbols, and for a teacher's distributions
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
    candidate_scores: dict[str, float]
    path: MergePath | None = None
    em: BaumWelch | None = None

    @property
    def states(self) -> int:
        """Number of states of the automaton."""
        return self.pfa.states


@dataclass(frozen=True, eq=False)
class Candidate:
    """An automaton on trial, estimated without the held-out strings, and what led to it.

    Of a clustering, `labels` are the states of each teacher's points; a random start has none.
    """

    name: str
    pfa: PFA
    score: float
    labels: tuple[Tensor, ...] = ()
    path: MergePath | None = None
    em: BaumWelch | None = None


class CandidateSearch:
    """The stages, on one split of the teachers' strings."""

    def __init__(self, teachers: Sequence[TracedSequences], weights: Sequence[float], options: DistillationOptions) -> None:
        self.teachers, self.weights, self.options = teachers, weights, options
        self.features = [_features(one, options) for one in teachers]
        splits = [_split(len(one.strings), options.held_out, options.seed + i) for i, one in enumerate(teachers)]
        self.train = [one.select(part) for one, (part, _) in zip(teachers, splits, strict=True)]
        self.held_out = [one.select(part) for one, (_, part) in zip(teachers, splits, strict=True)]
        self.train_points = [one.prefixes_of(part) for one, (part, _) in zip(teachers, splits, strict=True)]
        self.checked = self._trees(self.held_out, options.states or options.clusters or LEAST_CLUSTERS)
        self.candidate_scores: dict[str, float] = {}
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
        return Distillation(pfa, self._labels(best, pfa), best.name, self.candidate_scores, path, best.em)

    def _merged(self, restart: int) -> Candidate:
        """Return a candidate from over-clustering and merging; several teachers are merged one by one first.

        The automata of the single teachers run over the strings of all of them. Points at which each automaton is
        in the same state as at others are one cluster of the common graph, which is then merged like any other.
        """
        labels = [self._kmeans(i, self._clusters(len(seen)), restart) for i, seen in enumerate(self.train_points)]
        if len(labels) == 1:
            return self._merge(labels, self.train, self.train_points, self.weights, noted=True)
        rows = zip(self.train, self.train_points, labels, strict=True)
        alone = [self._merge([own], [part], [points], [1.0]).pfa for part, points, own in rows]
        states = [torch.stack([most_likely_states(pfa, seen.strings) for pfa in alone]) for seen in self.teachers]
        together = torch.unique(torch.cat(states, 1), dim=1, return_inverse=True)[1]
        common = together.split([seen.n_prefixes for seen in self.teachers])
        return self._merge(common, self.train, self.train_points, self.weights, noted=True)

    def _merge(
        self,
        labels: Sequence[Tensor],
        train: Sequence[TracedSequences],
        points: Sequence[Tensor],
        weights: Sequence[float],
        noted: bool = False,
    ) -> Candidate:
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
        return Candidate("refined", automata[-1], score, tuple(groups[one] for one in labels), path)

    def _plain(self, restart: int, states: int) -> Candidate:
        """Return a candidate whose states are clusters."""
        labels = self._kmeans(0, states, restart)
        quotient = self._count([labels], self.train, self.train_points, self.weights, int(labels.max()) + 1)
        pfa = quotient.to_pfa(self.pseudocount)
        return Candidate("kmeans", pfa, self._score("kmeans", pfa), (labels,))

    def _refined(self, found: Sequence[Candidate], states: int) -> list[Candidate]:
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
        refined += [self._em(Candidate("blurred", pfa, 0.0, ()), trees) for pfa in blurred]
        if not large:
            vocab = self.teachers[0].vocab_size
            starts = [random_pfa_start(vocab, states, options.seed + i) for i in range(options.restarts)]
            raced = [
                baum_welch(one, trees, max_iter=min(RACE, options.em_steps), pseudocount=self.pseudocount)
                for one in starts
            ]
            winner = max(raced, key=lambda one: objective(one.pfa, self.checked)).pfa
            refined.append(self._em(Candidate("random", winner, 0.0), trees))
        return refined

    def _em(self, start: Candidate, trees: list[PrefixTree]) -> Candidate:
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
        return Candidate(name, run.pfa, self._score(name, run.pfa), start.labels, start.path, run)

    def _refit(self, best: Candidate) -> PFA:
        """Return the candidate estimated from all strings: its counts, or a few more Baum-Welch steps."""
        if best.em is None:
            quotient = self._count(best.labels, self.teachers, None, self.weights, best.pfa.states)
            return quotient.to_pfa(self.pseudocount)
        trees = self._trees(self.teachers, best.pfa.states)
        steps = min(best.em.steps, REFIT)
        dtype = _dtype(trees, best.pfa.states)
        return baum_welch(best.pfa, trees, max_iter=steps, pseudocount=self.pseudocount, dtype=dtype).pfa

    def _labels(self, best: Candidate, pfa: PFA) -> Tensor:
        """Return the state of each point: its cluster's, or after Baum-Welch the likeliest given the prefix."""
        if best.em is None:
            return torch.cat(best.labels)
        return torch.cat([most_likely_states(pfa, one.strings) for one in self.teachers])

    def _choose(self, found: Sequence[Candidate]) -> Candidate:
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

    def _best(self, candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=lambda one: one.score)

    def _score(self, name: str, pfa: PFA) -> float:
        """Return the held-out objective of an automaton, and note the best of its stage."""
        value = objective(pfa, self.checked)
        self.candidate_scores[name] = max(value, self.candidate_scores.get(name, -torch.inf))
        return value

    def _clusters(self, n_prefixes: int) -> int:
        """Return the number of clusters before merging for one teacher."""
        options = self.options
        states = options.states or 1
        if options.clusters is not None:
            return min(options.clusters, n_prefixes)
        most = min(n_prefixes // POINTS_PER_CLUSTER, int((MERGE_CELLS / self.teachers[0].vocab_size) ** 0.5))
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
        data: Sequence[TracedSequences],
        points: Sequence[Tensor] | None,
        weights: Sequence[float],
        clusters: int,
    ) -> Quotient:
        """Return the counts of clusters that the teachers share, at the given points of each, or at all."""
        parts = labels if points is None else [one[part] for one, part in zip(labels, points, strict=True)]
        pairs = zip(data, parts, strict=True)
        return weighted_sum([count(seen, part, n_clusters=clusters, soft=self.options.soft) for seen, part in pairs], weights)

    def _trees(self, data: Sequence[TracedSequences], states: int) -> list[PrefixTree]:
        """Return the prefix trees of all teachers' strings together."""
        strings = TokenSequences.cat([one.strings for one in data])
        weights = [torch.full((len(one.strings),), w).double() for one, w in zip(data, self.weights, strict=True)]
        probs = [one.next_probs for one in data if one.next_probs is not None] if self.options.soft else []
        together = torch.cat(probs) if len(probs) == len(data) else None
        return bounded_prefix_trees(strings, states, weights=torch.cat(weights), next_probs=together)


def _objectives(pfa: PFA, seen: TracedSequences, soft: bool) -> Tensor:
    """Return the objective of each string, float64 [n]."""
    probs = trace_token_sequences(pfa, seen.strings).log_probs.double().exp()
    if soft and seen.next_probs is not None:
        values = torch.xlogy(seen.next_probs.double(), probs).sum(1)
    else:
        values = probs.gather(1, seen.symbols()[:, None])[:, 0].log()
    string = torch.arange(len(seen.strings)).repeat_interleave(seen.strings.lengths + 1)
    return torch.zeros(len(seen.strings), dtype=torch.float64).index_add_(0, string, values)


def _features(seen: TracedSequences, options: DistillationOptions) -> Tensor:
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
