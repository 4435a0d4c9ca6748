r"""Baum-Welch estimation of probabilistic automata, from strings or from a teacher's next-token distributions.

Notation: belief :math:`\alpha_i` of the state after prefix i (sum 1), emissions :math:`e_a(k) = \sum_l A_a(k, l)`
and :math:`e_\$ = \rho`. The objective is the mean over the prefixes i of

.. math:: \sum_a w_i(a) \log P(a \mid i), \qquad P(a \mid i) = \alpha_i \cdot e_a

where w_i(a) counts how often symbol a followed prefix i (the log-likelihood of the strings), or is the teacher's
probability of a after i. The second is the same mean with less variance, as no single symbol is drawn. In both
cases the expected counts are n(k, a, l) = A_a(k, l) dJ/dA_a(k, l), and a step makes P(a, l | k) proportional to
them. From strings this is the algorithm of Baum and Welch; otherwise it is its extension to rational functions,
and a step that would lower the objective is
halved. Steps that succeed reach further, which saves most of them.

Source:
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

CELLS = 1 << 25  # numbers in the beliefs of one tree
HALVINGS = 6  # of a step that would lower the objective
GROWTH = 1.5  # of the reach of over-relaxed steps


@dataclass(frozen=True, eq=False)
class BaumWelch:
    """The result of :func:`baum_welch`.

    Args:
        pfa: the best automaton: of the held-out objective where there is one, otherwise the last.
        train: objective before each step and after the last, in nats per symbol.
        held_out: the same for the held-out strings; empty without them.
        steps: number of steps that led to `pfa`.
    """

    pfa: PFA
    train: tuple[float, ...]
    held_out: tuple[float, ...]
    steps: int


@dataclass(frozen=True, eq=False)
class ExpectedCounts:
    """Expected counts: starts [K], emissions with the end last [K, V], transitions [S, K, K], and the objective."""

    starts: Tensor
    emissions: Tensor
    transitions: Tensor
    objective: float


Data = TracedSequences | TokenSequences | Sequence[PrefixTree]


def prefix_trees_for(data: Data, states: int, *, soft: bool = True, weights: Tensor | None = None) -> list[PrefixTree]:
    """Return the prefix trees of strings or trajectories, small enough for K states; trees are returned as they are.

    Args:
        data: the strings, with a teacher's next-token distributions or without.
        states: K.
        soft: use the distributions where there are some.
        weights: weight of each string [n]; None for 1.
    """
    if isinstance(data, TokenSequences):
        return bounded_prefix_trees(data, states, weights=weights)
    if isinstance(data, TracedSequences):
        return bounded_prefix_trees(data.strings, states, weights=weights, next_probs=data.next_probs if soft else None)
    return list(data)


def bounded_prefix_trees(
    strings: TokenSequences, states: int, *, weights: Tensor | None = None, next_probs: Tensor | None = None
) -> list[PrefixTree]:
    """Return the prefix trees of strings, each with about ``CELLS / states`` points; see :func:`prefix_forest`."""
    return prefix_forest(strings, most=max(1, CELLS // states), weights=weights, next_probs=next_probs)


def most_likely_states(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return the likeliest state at each point of the strings given the tokens before it, int64 [N]."""
    parameters = _Parameters.of(pfa, torch.float64)
    return torch.cat([_forward(tree, parameters)[0].argmax(1)[tree.nodes] for tree in bounded_prefix_trees(strings, pfa.states)])


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
        pfa: the automaton.
        trees: the prefix trees of the data; see :func:`prefix_trees_for`.
        dtype: precision of the recursions.
    """
    parameters = _Parameters.of(pfa, dtype)
    slopes = [torch.zeros_like(one) for one in (pfa.initial, pfa.transitions, pfa.stop)]
    value = sum(_add_slopes(tree, parameters, *slopes) for tree in trees)
    starts, transitions, stops = (slope * one for slope, one in zip(slopes, pfa.buffers(), strict=True))
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
) -> BaumWelch:
    """Return the automaton after Baum-Welch steps from a start; zeros of the start stay zeros.

    Args:
        pfa: the start; it is not changed.
        data: strings, trajectories with next-token distributions, or prefix trees of either.
        held_out: the same for early stopping; None to go on until the objective stands still.
        soft: use the next-token distributions where there are some.
        weights: weight of each string of the data [n]; None for 1.
        max_iter: greatest number of steps, >= 0.
        patience: number of steps without a better held-out objective after which to stop, >= 1.
        tol: least rise of the objective, in nats per symbol, that counts as one, > 0.
        pseudocount: weight added to every symbol of every state, >= 0.
        dtype: precision of the recursions; float32 held_out_split time and memory for many states.

    Raises:
        ConfigError: an argument is out of range.
        DataError: the strings are impossible for the start.
    """
    integer("max_iter", max_iter, 0)
    integer("patience", patience)
    positive("tol", tol)
    if not pseudocount >= 0:
        raise ConfigError(f"pseudocount must be >= 0, got {pseudocount!r}")
    trees = prefix_trees_for(data, pfa.states, soft=soft, weights=weights)
    checked = None if held_out is None else prefix_trees_for(held_out, pfa.states, soft=soft)
    climb = _Climb(pfa, trees, dtype, pseudocount)
    if climb.counts.objective == -torch.inf:
        raise DataError("the data hold a string that is impossible for the automaton to start from")
    train, kept = [climb.counts.objective], []
    best, best_step, best_value = pfa, 0, -torch.inf
    for step in range(max_iter + 1):
        if checked is not None:
            kept.append(objective(climb.pfa, checked, dtype=dtype))
            if kept[-1] > best_value + tol or step == 0:
                best, best_step, best_value = climb.pfa, step, kept[-1]
            if step - best_step >= patience:
                break
        else:
            best, best_step = climb.pfa, step
        if step == max_iter or not climb.step():
            break
        train.append(climb.counts.objective)
        if train[-1] - train[-2] < tol and checked is None:
            best, best_step = climb.pfa, step + 1
            break
    return BaumWelch(best, tuple(train), tuple(kept), best_step)


def random_pfa_start(vocab_size: int, states: int, seed: int) -> PFA:
    """Return a random automaton to start from, without zeros: each distribution uniform on its simplex.

    Args:
        vocab_size: V >= 2.
        states: K >= 1.
        seed: seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)

    starts, emissions = draw(states), draw(states, vocab_size)
    return pfa_from_counts(starts, emissions, draw(vocab_size - 1, states, states), torch.zeros(1))


class _Climb:
    """An automaton on its way up, with its expected counts.

    Steps are over-relaxed: beyond the automaton of the expected counts, further after each success (Salakhutdinov
    and Roweis 2003, "Adaptive overrelaxed bound optimization methods").
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
        for _ in range(HALVINGS):
            found = self._at(_beyond(self.pfa, target, reach) if reach > 1 else _between(self.pfa, target, reach))
            if found[2] >= self.value:
                self.pfa, self.counts, self.value = found
                self.reach = max(1.0, reach) * GROWTH
                return True
            reach = 1.0 if reach > 1 else reach / 2
        return False

    def _at(self, pfa: PFA) -> tuple[PFA, ExpectedCounts, float]:
        """Return an automaton with its expected counts and its objective with the prior of the pseudocount."""
        counts = expected_counts(pfa, self.trees, dtype=self.dtype)
        prior = self.pseudocount * float(pfa.emissions.log().sum()) if self.pseudocount else 0.0
        return pfa, counts, counts.objective + prior / self.total


def maximise(pfa: PFA, counts: ExpectedCounts, pseudocount: float) -> PFA:
    """Return the automaton of the expected counts; pairs (k, a) without counts keep their successors."""
    emissions = counts.emissions.clamp_min(0) + pseudocount
    pairs = pfa.transitions.sum(2, keepdim=True)
    fallback = torch.where(pairs > 0, pfa.transitions / pairs, 1 / pfa.states)
    return pfa_from_counts(counts.starts.clamp_min(0), emissions, counts.transitions.clamp_min(0), fallback)


def _beyond(one: PFA, other: PFA, reach: float) -> PFA:
    """Return the automaton beyond the other as seen from the one: p^(1 - reach) q^reach, normalised."""
    initial, transitions, stop = (
        torch.where(first > 0, second * (second / first) ** (reach - 1), 0)
        for first, second in zip(one.buffers(), other.buffers(), strict=True)
    )
    total = transitions.sum((0, 2)) + stop
    return PFA.from_parameters(initial / initial.sum(), transitions / total[:, None], stop / total)


def _between(one: PFA, other: PFA, share: float) -> PFA:
    """Return the automaton at the given share of the way from one to the other."""
    if share == 1:
        return other
    pairs = zip(one.buffers(), other.buffers(), strict=True)
    return PFA.from_parameters(*(first + share * (second - first) for first, second in pairs))


@dataclass(frozen=True, eq=False)
class _Parameters:
    """An automaton's parameters in the precision of the recursions; emissions as [V, K]."""

    initial: Tensor
    transitions: Tensor
    emissions: Tensor

    @classmethod
    def of(cls, pfa: PFA, dtype: torch.dtype) -> "_Parameters":
        return cls(pfa.initial.to(dtype), pfa.transitions.to(dtype), pfa.emissions.T.to(dtype).contiguous())


def _forward(tree: PrefixTree, parameters: _Parameters) -> tuple[Tensor, Tensor]:
    """Return the beliefs [M, K] and their scales [M]; both 0 from an impossible token on."""
    beliefs = parameters.initial.new_empty(tree.n_nodes, len(parameters.initial))
    scales = beliefs.new_ones(tree.n_nodes)
    beliefs[0] = parameters.initial
    for layer in tree.groups:
        for token, first, end in layer:
            torch.mm(beliefs[tree.parent[first:end]], parameters.transitions[token], out=beliefs[first:end])
        rows = slice(layer[0][1], layer[-1][2])
        scales[rows] = beliefs[rows].sum(1)
        beliefs[rows] /= torch.where(scales[rows] > 0, scales[rows], 1)[:, None]
    return beliefs, scales


def _predictions(tree: PrefixTree, parameters: _Parameters, beliefs: Tensor) -> Tensor:
    """Return the probability of each symbol after each prefix [M, V]; of the end alone [M] where no teacher is."""
    return beliefs @ (parameters.emissions[-1] if tree.symbols is None else parameters.emissions.T)


def _value(tree: PrefixTree, predictions: Tensor, scales: Tensor) -> float:
    """Return the objective's sum over one tree."""
    if tree.symbols is not None:
        return float(torch.xlogy(tree.symbols.to(predictions.dtype), predictions).sum(dtype=torch.float64))
    ends = torch.xlogy(tree.stops, predictions.double())
    return float(ends.sum() + torch.xlogy(tree.weight, scales.double()).sum())


def _add_slopes(tree: PrefixTree, parameters: _Parameters, initial: Tensor, transitions: Tensor, stop: Tensor) -> float:
    """Add the derivatives of one tree's objective by the parameters to the given ones; return its value."""
    beliefs, scales = _forward(tree, parameters)
    predictions, taken = _predictions(tree, parameters, beliefs), torch.zeros_like(scales)
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
        taken += tree.weight.to(beliefs.dtype)  # by the scaling of a belief, which the next one does not see
    inverse = torch.where(scales > 0, 1 / scales, 0)
    for layer in reversed(tree.groups):
        rows = slice(layer[0][1], layer[-1][2])
        messages[rows] -= taken[rows, None]
        messages[rows] *= inverse[rows, None]
        for token, first, end in layer:
            messages.index_add_(0, tree.parent[first:end], messages[first:end] @ parameters.transitions[token].T)
    initial += messages[0].double()
    for token, nodes in tree.edges_by_token():
        transitions[token] += (beliefs[tree.parent[nodes]].T @ messages[nodes]).double()
    return _value(tree, predictions, scales)


def _ratio(weights: Tensor, probabilities: Tensor) -> Tensor:
    return torch.where(weights > 0, weights / probabilities, 0)
