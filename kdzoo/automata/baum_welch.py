r"""Baum-Welch estimation of probabilistic automata, from strings or from a teacher's next-token distributions.

Notation: K states, S tokens, V = S + 1 symbols with the end $; M prefixes in a tree; belief :math:`\alpha_i`, the
distribution of the state after prefix i; emissions :math:`e_a(k) = \sum_l A_a(k, l)` and :math:`e_\$ = \rho`. The
objective is the mean over the prefixes i of

.. math:: \sum_a w_i(a) \log P(a \mid i), \qquad P(a \mid i) = \alpha_i \cdot e_a

where w_i(a) counts how often symbol a followed prefix i (the log-likelihood of the strings), or is the teacher's
probability of a after i. The second has the same expectation and less variance, as no single symbol is sampled. In
both cases the expected counts are n(k, a, l) = A_a(k, l) dJ/dA_a(k, l), and a step makes P(a, l | k) proportional to
them. From strings this is the algorithm of Baum and Welch. From distributions it is the extension of that algorithm
to rational functions, which may overshoot: a step that would lower the objective is halved. After a step that
succeeds the next one reaches further, which saves most of the steps.

References:
    Baum, Petrie, Soules and Weiss 1970, Annals of Mathematical Statistics 41(1); Gopalakrishnan, Kanevsky, Nadas
    and Nahamoo 1991, "An inequality for rational functions with applications to some statistical estimation
    problems", IEEE Transactions on Information Theory 37(1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.automata.counts import pfa_from_counts
from kdzoo.automata.pfa import PFA
from kdzoo.automata.prefix_tree import PrefixTree, prefix_forest
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.core.validation import integer, positive
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences

# Numbers in the beliefs of one tree: 256 MB in float64. Strings beyond that go to further trees, one after the other.
CELLS = 1 << 25

# How often a step is shortened before the automaton is taken as a local optimum. The last attempt is at most 1/16 of
# a plain step, whose gain is then below any tolerance that makes sense.
MAX_ATTEMPTS = 6

# Factor by which the reach of over-relaxed steps grows after each success. A larger one saves steps on plateaus and
# costs more attempts that have to be taken back.
GROWTH = 1.5


@dataclass(frozen=True, eq=False)
class BaumWelchResult:
    """The result of :func:`baum_welch`.

    Args:
        pfa: The automaton of the best held-out objective, or the last one without held-out strings.
        train: Objective before each step and after the last, in nats per symbol.
        held_out: The same for the held-out strings; empty without them.
        steps: Number of steps that led to ``pfa``.
    """

    pfa: PFA
    train: tuple[float, ...]
    held_out: tuple[float, ...]
    steps: int


@dataclass(frozen=True, eq=False)
class ExpectedCounts:
    """Expected counts under an automaton, and its objective.

    Args:
        starts: Expected number of strings that start in each state ``[K]``.
        emissions: Expected number of symbols in each state, the end last ``[K, V]``.
        transitions: Expected number of transitions ``[S, K, K]``, at ``[a, k, l]`` from k to l with token a.
        objective: Mean log-probability of a symbol, in nats.
    """

    starts: Tensor
    emissions: Tensor
    transitions: Tensor
    objective: float

    def tensors(self) -> dict[str, Tensor]:
        """Return the counts by name, for sums and means over batches and for checkpoints."""
        return {"starts": self.starts, "emissions": self.emissions, "transitions": self.transitions}


Data = TracedSequences | TokenSequences | Sequence[PrefixTree]


def prefix_trees_for(data: Data, states: int, *, soft: bool = True, weights: Tensor | None = None) -> list[PrefixTree]:
    """Return the prefix trees of strings or traced sequences, small enough for K states; trees are returned unchanged.

    Args:
        data: The strings, with a teacher's next-token distributions or without.
        states: Number of states K.
        soft: Use the teacher's distributions if there are any.
        weights: Weight of each string ``[n]``; None for 1.
    """
    if isinstance(data, TokenSequences):
        return bounded_prefix_trees(data, states, weights=weights)
    if isinstance(data, TracedSequences):
        return bounded_prefix_trees(data.strings, states, weights=weights, next_probs=data.next_probs if soft else None)
    return list(data)


def bounded_prefix_trees(
    strings: TokenSequences, states: int, *, weights: Tensor | None = None, next_probs: Tensor | None = None
) -> list[PrefixTree]:
    """Return the prefix trees of strings, each with about ``CELLS / states`` prefixes; see :func:`prefix_forest`."""
    return prefix_forest(strings, most=max(1, CELLS // states), weights=weights, next_probs=next_probs)


def most_likely_states(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return the most likely state after each prefix of the strings, given its tokens, int64 ``[N]``."""
    parameters = _Parameters.of(pfa, torch.float64)
    trees = bounded_prefix_trees(strings, pfa.states)
    return torch.cat([_forward(tree, parameters)[0].argmax(1)[tree.nodes] for tree in trees])


def objective(pfa: PFA, trees: Sequence[PrefixTree], *, dtype: torch.dtype = torch.float64) -> float:
    """Return the mean log-probability of a symbol, the ends included, in nats; -inf for impossible ones."""
    parameters = _Parameters.of(pfa, dtype)
    total = sum(tree.total for tree in trees)
    value = 0.0
    for tree in trees:
        beliefs, scales = _forward(tree, parameters)
        value += _value(tree, _predictions(tree, parameters, beliefs), scales)
    return value / total


def expected_counts(pfa: PFA, trees: Sequence[PrefixTree], *, dtype: torch.dtype = torch.float64) -> ExpectedCounts:
    """Return the expected counts under an automaton, float64, and its objective, by forward and backward recursion.

    Args:
        pfa: The automaton.
        trees: The prefix trees of the data; see :func:`prefix_trees_for`.
        dtype: Precision of the recursions.
    """
    parameters = _Parameters.of(pfa, dtype)
    gradients = [torch.zeros_like(parameter) for parameter in (pfa.initial, pfa.transitions, pfa.stop)]
    value = sum(_add_gradients(tree, parameters, *gradients) for tree in trees)
    # The expected counts are parameter times derivative; a parameter that is 0 has the count 0 and stays 0.
    starts, transitions, stops = (
        gradient * parameter for gradient, parameter in zip(gradients, pfa.buffers(), strict=True)
    )
    emissions = torch.cat([transitions.sum(2).T, stops[:, None]], 1)
    return ExpectedCounts(starts, emissions, transitions, value / sum(tree.total for tree in trees))


def baum_welch(
    pfa: PFA,
    data: Data,
    *,
    held_out: Data | None = None,
    soft: bool = True,
    weights: Tensor | None = None,
    max_iter: int = 50,
    patience: int = 5,
    tol: float = 1e-6,
    pseudocount: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> BaumWelchResult:
    """Return the automaton after Baum-Welch steps from a start; zeros of the start stay zeros.

    Args:
        pfa: The start; it is not changed.
        data: Strings, traced sequences with next-token distributions, or prefix trees of either.
        held_out: Data for early stopping, in the same form; None to continue until the objective has converged.
        soft: Use the next-token distributions if there are any.
        weights: Weight of each string of the data ``[n]``; None for 1.
        max_iter: Maximum number of steps, >= 0.
        patience: Number of steps without a better held-out objective after which to stop, >= 1.
        tol: Smallest increase of the objective that continues the iteration, in nats per symbol, > 0.
        pseudocount: Weight added to every symbol of every state, >= 0.
        dtype: Precision of the recursions; float32 halves time and memory for many states.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If a string is impossible under the start.
    """
    integer("max_iter", max_iter, 0)
    integer("patience", patience)
    positive("tol", tol)
    if not pseudocount >= 0:
        raise ConfigError(f"pseudocount must be >= 0, got {pseudocount!r}")
    trees = prefix_trees_for(data, pfa.states, soft=soft, weights=weights)
    ascent = _Ascent(pfa, trees, dtype, pseudocount)
    if ascent.counts.objective == -torch.inf:
        raise DataError("the data hold a string that is impossible under the automaton to start from")
    if held_out is None:
        return _run_to_convergence(ascent, max_iter, tol)
    return _run_with_early_stopping(ascent, prefix_trees_for(held_out, pfa.states, soft=soft), max_iter, patience, tol)


def random_pfa_start(vocab_size: int, states: int, seed: int) -> PFA:
    """Return a random automaton to start from, without zeros: each distribution uniform on its simplex.

    Args:
        vocab_size: V >= 2.
        states: K >= 1.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)

    starts, emissions = draw(states), draw(states, vocab_size)
    return pfa_from_counts(starts, emissions, draw(vocab_size - 1, states, states), torch.zeros(1))


class _Ascent:
    """The current automaton of a Baum-Welch run, with its expected counts.

    Steps are over-relaxed: they go beyond the automaton of the expected counts, further after each success
    (Salakhutdinov and Roweis 2003, "Adaptive overrelaxed bound optimization methods").
    """

    def __init__(self, pfa: PFA, trees: Sequence[PrefixTree], dtype: torch.dtype, pseudocount: float) -> None:
        self.trees, self.dtype, self.pseudocount = trees, dtype, pseudocount
        self.total = sum(tree.total for tree in trees)
        self.reach = 1.0
        self.pfa, self.counts, self.value = self._at(pfa)

    def step(self) -> bool:
        """Take a step that does not lower the penalised objective; return whether one was found."""
        target = maximise(self.pfa, self.counts, self.pseudocount)
        reach = self.reach
        for _ in range(MAX_ATTEMPTS):
            candidate = _extrapolate(self.pfa, target, reach) if reach > 1 else _interpolate(self.pfa, target, reach)
            result = self._at(candidate)
            if result[2] >= self.value:
                self.pfa, self.counts, self.value = result
                self.reach = max(1.0, reach) * GROWTH
                return True
            # An over-relaxed step that fails falls back to the plain one, which cannot fail for sampled symbols.
            reach = 1.0 if reach > 1 else reach / 2
        return False

    def _at(self, pfa: PFA) -> tuple[PFA, ExpectedCounts, float]:
        """Return an automaton with its expected counts and its penalised objective."""
        counts = expected_counts(pfa, self.trees, dtype=self.dtype)
        # A pseudocount c is a Dirichlet(1 + c) prior on the emissions: steps maximise objective plus log-prior.
        prior = self.pseudocount * float(pfa.emissions.log().sum()) if self.pseudocount else 0.0
        return pfa, counts, counts.objective + prior / self.total


def maximise(pfa: PFA, counts: ExpectedCounts, pseudocount: float) -> PFA:
    """Return the automaton of the expected counts (the M-step); pairs (k, a) without counts keep their successors.

    Args:
        pfa: The automaton under which the counts were taken.
        counts: The expected counts.
        pseudocount: Weight added to every symbol of every state, >= 0.
    """
    # Rounding can leave counts a little below 0.
    emissions = counts.emissions.clamp_min(0) + pseudocount
    pairs = pfa.transitions.sum(2, keepdim=True)
    fallback = torch.where(pairs > 0, pfa.transitions / pairs, 1 / pfa.states)
    return pfa_from_counts(counts.starts.clamp_min(0), emissions, counts.transitions.clamp_min(0), fallback)


def _run_to_convergence(ascent: _Ascent, max_iter: int, tol: float) -> BaumWelchResult:
    """Step until the objective rises by less than the tolerance."""
    train = [ascent.counts.objective]
    while len(train) <= max_iter and ascent.step():
        train.append(ascent.counts.objective)
        if train[-1] - train[-2] < tol:
            break
    return BaumWelchResult(ascent.pfa, tuple(train), (), len(train) - 1)


def _run_with_early_stopping(
    ascent: _Ascent, held_out: Sequence[PrefixTree], max_iter: int, patience: int, tol: float
) -> BaumWelchResult:
    """Step until the held-out objective has not risen for ``patience`` steps; return its best step."""
    train, values = [ascent.counts.objective], []
    best, best_step, best_value = ascent.pfa, 0, -torch.inf
    for step in range(max_iter + 1):
        values.append(objective(ascent.pfa, held_out, dtype=ascent.dtype))
        # The start is accepted with any value, which may be -inf for held-out strings unlike the others.
        if step == 0 or values[-1] > best_value + tol:
            best, best_step, best_value = ascent.pfa, step, values[-1]
        if step - best_step >= patience or step == max_iter or not ascent.step():
            break
        train.append(ascent.counts.objective)
    return BaumWelchResult(best, tuple(train), tuple(values), best_step)


def _extrapolate(start: PFA, target: PFA, reach: float) -> PFA:
    """Return the automaton beyond the target: start^(1 - reach) target^reach, normalised.

    The geometric mean rather than the linear one keeps every parameter positive, however far the step reaches.
    """
    initial, transitions, stop = (
        torch.where(before > 0, after * (after / before) ** (reach - 1), 0)
        for before, after in zip(start.buffers(), target.buffers(), strict=True)
    )
    total = transitions.sum((0, 2)) + stop
    return PFA.from_parameters(initial / initial.sum(), transitions / total[:, None], stop / total)


def _interpolate(start: PFA, target: PFA, share: float) -> PFA:
    """Return the automaton at the given share of the way from the start to the target."""
    if share == 1:
        return target
    pairs = zip(start.buffers(), target.buffers(), strict=True)
    return PFA.from_parameters(*(before + share * (after - before) for before, after in pairs))


@dataclass(frozen=True, eq=False)
class _Parameters:
    """An automaton's parameters in the precision of the recursions; emissions as ``[V, K]``."""

    initial: Tensor
    transitions: Tensor
    emissions: Tensor

    @classmethod
    def of(cls, pfa: PFA, dtype: torch.dtype) -> "_Parameters":
        return cls(pfa.initial.to(dtype), pfa.transitions.to(dtype), pfa.emissions.T.to(dtype).contiguous())


def _forward(tree: PrefixTree, parameters: _Parameters) -> tuple[Tensor, Tensor]:
    """Return the beliefs ``[M, K]`` and their scales ``[M]``; both 0 from an impossible token on."""
    beliefs = parameters.initial.new_empty(tree.n_nodes, len(parameters.initial))
    scales = beliefs.new_ones(tree.n_nodes)
    beliefs[0] = parameters.initial
    # Without scaling, beliefs would underflow after a few hundred tokens; the scales hold what is divided out.
    for layer in tree.groups:
        for token, first, end in layer:
            torch.mm(beliefs[tree.parent[first:end]], parameters.transitions[token], out=beliefs[first:end])
        rows = slice(layer[0][1], layer[-1][2])
        scales[rows] = beliefs[rows].sum(1)
        beliefs[rows] /= torch.where(scales[rows] > 0, scales[rows], 1)[:, None]
    return beliefs, scales


def _predictions(tree: PrefixTree, parameters: _Parameters, beliefs: Tensor) -> Tensor:
    """Return the probability of each symbol after each prefix ``[M, V]``; without a teacher, of the end only ``[M]``.

    Without a teacher the scales are the probabilities of the tokens, so that only the ends remain to be predicted.
    """
    return beliefs @ (parameters.emissions[-1] if tree.symbols is None else parameters.emissions.T)


def _value(tree: PrefixTree, predictions: Tensor, scales: Tensor) -> float:
    """Return the objective's sum over one tree."""
    if tree.symbols is not None:
        return float(torch.xlogy(tree.symbols.to(predictions.dtype), predictions).sum(dtype=torch.float64))
    ends = torch.xlogy(tree.stops, predictions.double())
    return float(ends.sum() + torch.xlogy(tree.weight, scales.double()).sum())


def _add_gradients(
    tree: PrefixTree, parameters: _Parameters, initial: Tensor, transitions: Tensor, stop: Tensor
) -> float:
    """Add the derivatives of one tree's objective with respect to the parameters to the given tensors, in place.

    This is reverse-mode differentiation of the forward recursion, written by hand: ``messages`` holds dJ/d(belief)
    and is filled from the deepest layer upwards.

    Returns:
        The sum of the objective over the tree.
    """
    beliefs, scales = _forward(tree, parameters)
    predictions, correction = _predictions(tree, parameters, beliefs), torch.zeros_like(scales)
    if tree.symbols is None:
        ratio = _ratio(tree.stops.to(beliefs.dtype), predictions)
        messages = ratio[:, None] * parameters.emissions[-1]
        stop += (ratio @ beliefs).double()
    else:
        ratio = _ratio(tree.symbols.to(beliefs.dtype), predictions)
        messages = ratio @ parameters.emissions
        by_emission = (ratio.T @ beliefs).double()  # [V, K]
        transitions += by_emission[:-1, :, None]
        stop += by_emission[-1]
        # The derivative of the scaling: a prediction does not depend on the scale of its belief, so that the part
        # of the message along the belief, which is the weight of the prefix, has to be subtracted.
        correction += tree.weight.to(beliefs.dtype)
    inverse = torch.where(scales > 0, 1 / scales, 0)
    for layer in reversed(tree.groups):
        rows = slice(layer[0][1], layer[-1][2])
        messages[rows] -= correction[rows, None]
        messages[rows] *= inverse[rows, None]
        for token, first, end in layer:
            messages.index_add_(0, tree.parent[first:end], messages[first:end] @ parameters.transitions[token].T)
    initial += messages[0].double()
    for token, nodes in tree.edges_by_token():
        transitions[token] += (beliefs[tree.parent[nodes]].T @ messages[nodes]).double()
    return _value(tree, predictions, scales)


def _ratio(weights: Tensor, probabilities: Tensor) -> Tensor:
    """Return weights / probabilities, with 0 / 0 = 0."""
    return torch.where(weights > 0, weights / probabilities, 0)
