"""The search for the best automaton: candidates of every kind, scored on one set of held-out strings.

Candidates are clusters as they are, clusters that were merged, and automata after Baum-Welch from these and from
blurred and random starts. All are estimated without the held-out strings; the winner is re-estimated from all strings.

Notation: N prefixes of all strings, K states, S tokens, V = S + 1 symbols.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdzoo.automata.baum_welch import (
    BaumWelchResult,
    baum_welch,
    bounded_prefix_trees,
    most_likely_states,
    objective,
    random_pfa_start,
)
from kdzoo.automata.clustering import kmeans_labels, nearest
from kdzoo.automata.counts import Quotient, count, weighted_sum
from kdzoo.automata.learned_states import learned_states
from kdzoo.automata.merging import MergePath, merge_path, refine
from kdzoo.automata.options import LEARNED, DistillationOptions
from kdzoo.automata.pfa import PFA
from kdzoo.automata.prefix_tree import PrefixTree
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.core.progress import track
from kdzoo.text.language_model import trace_token_sequences
from kdzoo.text.token_sequences import TokenSequences

# Weight added to each symbol of each state, for sampled symbols and for a teacher's distributions. The latter say
# what is possible, so that 0.01 would only blur them: with 100 Reber strings it cost 0.001 nats per symbol.
PSEUDOCOUNT, SOFT_PSEUDOCOUNT = 1e-2, 1e-4

# Number of clusters before merging: five for each state, at least 60. On the Reber grammar 60 to 100 clusters separate
# the states that 20 clusters confuse; three to ten for each state worked alike.
LEAST_CLUSTERS = 60
CLUSTERS_PER_STATE = 5

# With fewer prefixes in a cluster, its counts are noise that merging fits: 50 strings of random automata over-fitted.
PREFIXES_PER_CLUSTER = 20

# Cells of a quotient graph, S K0^2, above which the number of clusters is lowered: 80 MB, and merging visits all of
# them for each of the K0 merges.
MERGE_CELLS = 1e7

# Prefixes times states above which a Baum-Welch step is slow: it then uses float32 and only the leading candidate.
LARGE = 5e6

# Share of the average automaton in blurred starts. More loses what clustering has found; less leaves the start so
# close to deterministic that Baum-Welch stays at the same optimum.
BLUR = 0.3

# Baum-Welch steps after which only the best random start continues. That saves the time of the others, but may drop a
# start that would have become the best later.
RACE = 10

# Baum-Welch steps on all strings at the end, at most: the held-out strings can no longer stop over-fitting there.
REFIT = 5

# An automaton that was not merged replaces a merged one only if it is better by this many nats per symbol and by this
# many standard errors. Merged states are few and easy to read, and ten held-out strings decide little.
MARGIN = 1e-3
STANDARD_ERRORS = 2


@dataclass(frozen=True, eq=False)
class Distillation:
    """The result of :func:`kdzoo.distill_states`.

    Args:
        pfa: The automaton, estimated from all strings.
        labels: Its state after each prefix, int64 ``[N]``; of several teachers, one after the other.
        chosen: Name of the kind of candidate that the held-out strings chose.
        candidate_scores: Best held-out objective of each kind of candidate, in nats per symbol: the mean
            log-probability of the next symbol, under the teacher's distributions if they are known. The candidates
            are estimated without the held-out strings.
        path: The merge path of the chosen candidate, or of the best merged one; None without merging.
        em: The Baum-Welch run that led to ``pfa``; None if the chosen candidate is one without Baum-Welch.
    """

    pfa: PFA
    labels: Tensor
    chosen: str
    candidate_scores: dict[str, float]
    path: MergePath | None = None
    em: BaumWelchResult | None = None

    @property
    def states(self) -> int:
        """Number of states of the automaton."""
        return self.pfa.states


@dataclass(frozen=True, eq=False)
class Candidate:
    """An automaton estimated without the held-out strings, and what led to it.

    Args:
        name: Kind of candidate, the key of its score.
        pfa: The automaton.
        score: Its held-out objective, in nats per symbol.
        labels: For candidates from a clustering, the state after each prefix, for each teacher int64 ``[N]``.
        path: The merge path, for merged candidates.
        em: The Baum-Welch run, for candidates after Baum-Welch.
    """

    name: str
    pfa: PFA
    score: float
    labels: tuple[Tensor, ...] = ()
    path: MergePath | None = None
    em: BaumWelchResult | None = None


class CandidateSearch:
    """All candidates on one split of the teachers' strings.

    Args:
        teachers: What each teacher shows along its strings.
        weights: Weight of each teacher's strings.
        options: Which candidates compete; see :func:`kdzoo.automata.distill.distill`.
    """

    def __init__(
        self, teachers: Sequence[TracedSequences], weights: Sequence[float], options: DistillationOptions
    ) -> None:
        self.teachers, self.weights, self.options = teachers, weights, options
        self.features = [_features(traced, options) for traced in teachers]
        splits = [_split(len(traced.strings), options.held_out, options.seed + i) for i, traced in enumerate(teachers)]
        self.train = [traced.select(train) for traced, (train, _) in zip(teachers, splits, strict=True)]
        self.held_out = [traced.select(held_out) for traced, (_, held_out) in zip(teachers, splits, strict=True)]
        self.train_prefixes = [traced.prefixes_of(train) for traced, (train, _) in zip(teachers, splits, strict=True)]
        self.held_out_trees = self._trees(self.held_out, options.states or options.clusters or LEAST_CLUSTERS)
        self.candidate_scores: dict[str, float] = {}
        has_distributions = options.soft and all(traced.next_probs is not None for traced in teachers)
        self.pseudocount = options.pseudocount or (SOFT_PSEUDOCOUNT if has_distributions else PSEUDOCOUNT)

    def run(self) -> Distillation:
        """Return the best of all candidates, re-estimated from all strings."""
        merged = self._best_of_restarts(self._merged, "merging states") if self.options.merge else None
        states = merged.pfa.states if merged is not None else int(self.options.states or 1)
        candidates = [] if merged is None else [merged]
        # Clusters of several teachers lie in different spaces, and a greater determinism needs merged automata.
        if len(self.teachers) == 1 and (self.options.determinism <= 1 or merged is None):
            candidates.append(self._best_of_restarts(lambda i: self._unmerged(i, states), "clustering states"))
        if self.options.em:
            candidates += self._after_em(candidates, states)
        best = self._choose(candidates)
        pfa = self._refit(best)
        path = best.path if best.path is not None or merged is None else merged.path
        return Distillation(pfa, self._labels(best, pfa), best.name, self.candidate_scores, path, best.em)

    def _merged(self, restart: int) -> Candidate:
        """Return a candidate from over-clustering and merging; several teachers are merged one by one first.

        The automata of the single teachers run over the strings of all of them. Prefixes with the same
        combination of states are one cluster of the common graph, which is then merged like any other.
        """
        labels = [
            self._kmeans(i, self._n_clusters(len(prefixes)), restart) for i, prefixes in enumerate(self.train_prefixes)
        ]
        if len(labels) == 1:
            return self._merge(labels, self.train, self.train_prefixes, self.weights, scored=True)
        rows = zip(self.train, self.train_prefixes, labels, strict=True)
        per_teacher = [self._merge([own], [traced], [prefixes], [1.0]).pfa for traced, prefixes, own in rows]
        states = [
            torch.stack([most_likely_states(pfa, traced.strings) for pfa in per_teacher]) for traced in self.teachers
        ]
        # Each combination of the teachers' states that occurs is one common cluster.
        combined = torch.unique(torch.cat(states, 1), dim=1, return_inverse=True)[1]
        common = combined.split([traced.n_prefixes for traced in self.teachers])
        return self._merge(common, self.train, self.train_prefixes, self.weights, scored=True)

    def _merge(
        self,
        labels: Sequence[Tensor],
        train: Sequence[TracedSequences],
        prefixes: Sequence[Tensor],
        weights: Sequence[float],
        scored: bool = False,
    ) -> Candidate:
        """Return a candidate from clusters that the given teachers share, merged to the requested number of states."""
        options = self.options
        clusters = max(int(part.max()) for part in labels) + 1
        quotient = self._count(labels, train, prefixes, weights, clusters)
        least = min(options.states or 1, clusters)
        path = merge_path(quotient, n_states=least, determinism=options.determinism, penalty=options.penalty)
        greedy = path.groups(least if options.states else path.best())
        groups = refine(quotient, greedy, determinism=options.determinism)
        automata = [
            graph.to_pfa(self.pseudocount) for graph in (quotient, quotient.merged(greedy), quotient.merged(groups))
        ]
        score = 0.0
        if scored:
            names = ("clusters", "merged", "refined")
            score = [self._score(name, pfa) for name, pfa in zip(names, automata, strict=True)][-1]
        return Candidate("refined", automata[-1], score, tuple(groups[part] for part in labels), path)

    def _unmerged(self, restart: int, states: int) -> Candidate:
        """Return a candidate whose states are clusters."""
        labels = self._kmeans(0, states, restart)
        quotient = self._count([labels], self.train, self.train_prefixes, self.weights, int(labels.max()) + 1)
        pfa = quotient.to_pfa(self.pseudocount)
        return Candidate("kmeans", pfa, self._score("kmeans", pfa), (labels,))

    def _after_em(self, candidates: Sequence[Candidate], states: int) -> list[Candidate]:
        """Return the candidates after Baum-Welch, and further ones from blurred and random starts.

        Blurred and random automata are not deterministic, so they do not compete if ``determinism`` is above 1.
        If a step takes long, only the leader is refined, as it is and blurred.
        """
        trees = self._trees(self.train, states)
        best = self._best(candidates)
        large = sum(tree.n_nodes for tree in trees) * states > LARGE
        started = track([best] if large else candidates, "Baum-Welch from candidates", unit="automata")
        results = [self._em(candidate, trees) for candidate in started]
        if self.options.determinism > 1:
            return results
        clusterings = [candidate for candidate in candidates if candidate.name == "kmeans"] or [best]
        for candidate in clusterings:
            quotient = self._count(
                candidate.labels, self.train, self.train_prefixes, self.weights, candidate.pfa.states
            )
            results.append(self._em(Candidate("blurred", quotient.to_blurred_pfa(BLUR), 0.0), trees))
        if not large:
            results.append(self._em(Candidate("random", self._best_random_start(trees, states), 0.0), trees))
        return results

    def _best_random_start(self, trees: list[PrefixTree], states: int) -> PFA:
        """Return the random start with the best held-out objective after a few Baum-Welch steps."""
        options, vocab_size = self.options, self.teachers[0].vocab_size
        starts = [random_pfa_start(vocab_size, states, options.seed + i) for i in range(options.restarts)]
        steps = min(RACE, options.em_steps)
        started = track(starts, "Baum-Welch from random automata", unit="automata")
        runs = [baum_welch(start, trees, max_iter=steps, pseudocount=self.pseudocount) for start in started]
        return max(runs, key=lambda run: objective(run.pfa, self.held_out_trees)).pfa

    def _em(self, start: Candidate, trees: list[PrefixTree]) -> Candidate:
        """Return a candidate after Baum-Welch with early stopping."""
        run = baum_welch(
            start.pfa,
            trees,
            held_out=self.held_out_trees,
            max_iter=self.options.em_steps,
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
        """Return the state after each prefix: that of its cluster, or after Baum-Welch the most likely one."""
        if best.em is None:
            return torch.cat(best.labels)
        return torch.cat([most_likely_states(pfa, traced.strings) for traced in self.teachers])

    def _choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the best merged candidate unless one without merging is better beyond noise.

        That is, by more than the margin and by more than two standard errors of the mean over the held-out strings.
        """
        best = self._best(candidates)
        merged = [candidate for candidate in candidates if candidate.path is not None]
        if not merged or best.path is not None:
            return best
        leader = self._best(merged)
        gain = self._by_string(best.pfa) - self._by_string(leader.pfa)
        # A single string has no standard error; then the merged candidate stays.
        error = float(gain.std() * len(gain) ** 0.5) if len(gain) > 1 else torch.inf
        symbols = sum(tree.total for tree in self.held_out_trees)
        return best if float(gain.sum()) > max(MARGIN * symbols, STANDARD_ERRORS * error) else leader

    def _by_string(self, pfa: PFA) -> Tensor:
        """Return the summed objective of each held-out string, float64 ``[n]``."""
        return torch.cat(
            [
                weight * _string_objectives(pfa, traced, self.options.soft)
                for traced, weight in zip(self.held_out, self.weights, strict=True)
            ]
        )

    def _best_of_restarts(self, restart: Callable[[int], Candidate], stage: str) -> Candidate:
        """Return the best result of a computation that is started with different seeds."""
        return self._best([restart(i) for i in track(range(self.options.restarts), stage, unit="starts")])

    def _best(self, candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=lambda candidate: candidate.score)

    def _score(self, name: str, pfa: PFA) -> float:
        """Return the held-out objective of an automaton, and record the best of its kind."""
        value = objective(pfa, self.held_out_trees)
        self.candidate_scores[name] = max(value, self.candidate_scores.get(name, -torch.inf))
        return value

    def _n_clusters(self, n_prefixes: int) -> int:
        """Return the number of clusters before merging for one teacher."""
        options = self.options
        states = options.states or 1
        if options.clusters is not None:
            return min(options.clusters, n_prefixes)
        most = min(n_prefixes // PREFIXES_PER_CLUSTER, int((MERGE_CELLS / self.teachers[0].vocab_size) ** 0.5))
        return max(states, min(max(LEAST_CLUSTERS, CLUSTERS_PER_STATE * states), most), 1)

    def _kmeans(self, teacher: int, clusters: int, restart: int) -> Tensor:
        """Return the clusters of a teacher's prefixes; those of held-out strings go to the nearest centre.

        Fitting to the training strings alone leaves no cluster without counts.
        """
        points, seed = self.features[teacher], self.options.seed + restart
        if len(self.train_prefixes[teacher]) < clusters:
            return kmeans_labels(points, clusters, seed=seed)
        train_points = points[self.train_prefixes[teacher]]
        train_labels = kmeans_labels(train_points, clusters, seed=seed)
        sums = torch.zeros(int(train_labels.max()) + 1, points.shape[1]).index_add_(0, train_labels, train_points)
        labels = nearest(points, sums / train_labels.bincount()[:, None])
        # k-means may stop before the labels agree with the recomputed centres; its own labels are never empty.
        labels[self.train_prefixes[teacher]] = train_labels
        return labels

    def _count(
        self,
        labels: Sequence[Tensor],
        data: Sequence[TracedSequences],
        prefixes: Sequence[Tensor] | None,
        weights: Sequence[float],
        clusters: int,
    ) -> Quotient:
        """Return the counts of clusters that the teachers share, at the given prefixes of each (None: all)."""
        if prefixes is not None:
            labels = [part[index] for part, index in zip(labels, prefixes, strict=True)]
        pairs = zip(data, labels, strict=True)
        quotients = [count(traced, part, n_clusters=clusters, soft=self.options.soft) for traced, part in pairs]
        return weighted_sum(quotients, weights)

    def _trees(self, data: Sequence[TracedSequences], states: int) -> list[PrefixTree]:
        """Return the prefix trees of all teachers' strings together."""
        strings = TokenSequences.cat([traced.strings for traced in data])
        weights = [
            torch.full((len(traced.strings),), weight).double()
            for traced, weight in zip(data, self.weights, strict=True)
        ]
        probs = [traced.next_probs for traced in data if traced.next_probs is not None] if self.options.soft else []
        # The objective of sampled symbols and that of distributions do not mix: use the latter only if all have them.
        next_probs = torch.cat(probs) if len(probs) == len(data) else None
        return bounded_prefix_trees(strings, states, weights=torch.cat(weights), next_probs=next_probs)


def _string_objectives(pfa: PFA, traced: TracedSequences, soft: bool) -> Tensor:
    """Return the objective of each string, float64 ``[n]``."""
    probs = trace_token_sequences(pfa, traced.strings).log_probs.double().exp()
    if soft and traced.next_probs is not None:
        values = torch.xlogy(traced.next_probs.double(), probs).sum(1)
    else:
        values = probs.gather(1, traced.symbols()[:, None])[:, 0].log()
    string = torch.arange(len(traced.strings)).repeat_interleave(traced.strings.lengths + 1)
    return torch.zeros(len(traced.strings), dtype=torch.float64).index_add_(0, string, values)


def _features(traced: TracedSequences, options: DistillationOptions) -> Tensor:
    """Return the points ``[N, d]`` to be clustered."""
    if options.features == LEARNED:
        return replace(traced, hidden=learned_states(traced, seed=options.seed)).features("both")
    return traced.features(options.features)


def _dtype(trees: Sequence[PrefixTree], states: int) -> torch.dtype:
    return torch.float32 if sum(tree.n_nodes for tree in trees) * states > LARGE else torch.float64


def _split(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and the held-out strings; all in both if none can be held out."""
    held_out = min(max(1, round(n * share)), n - 1) if share else 0
    if held_out == 0:
        return torch.arange(n), torch.arange(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values
