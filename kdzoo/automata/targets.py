"""Known automata to learn: the embedded Reber grammar, Tomita's and UHL languages, random targets.

Notation: K states, S tokens, V = S + 1 symbols; a deterministic automaton starts in state 0.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from kdzoo.automata.dfa import DFA
from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError

REBER_SYMBOLS = "BTPSXVE"
"""The letters of the Reber grammar; the index of a letter is its token."""

_Arc = tuple[int, int, int, float]  # source, token, target, probability


def embedded_reber() -> PFA:
    """Return the embedded Reber grammar: 20 states, 7 tokens, deterministic, every choice equally likely.

    A string is B, then T or P, then a string of the plain Reber grammar, then the same T or P again, then E. To predict
    the last but one letter, the second letter has to be remembered over the whole inner string.

    References:
        Cleeremans, Servan-Schreiber & McClelland 1989, "Finite state automata and simple recurrent networks",
        Neural Computation 1(3), figure 10; Hochreiter & Schmidhuber 1997, experiment 1.

    Example:
        >>> from kdzoo.text.token_sequences import TokenSequences
        >>> words = [[REBER_SYMBOLS.index(letter) for letter in word] for word in ("BTBPVVETE", "BTBPVVEPE")]
        >>> embedded_reber().log_prob(TokenSequences.of(words)).exp().tolist()
        [0.0625, 0.0]
    """
    # Two copies of the plain grammar, one for each second letter: from state 2 to 9 after T, from 10 to 17 after P.
    arcs = [(0, "B", 1), (1, "T", 2), (1, "P", 10), (9, "T", 18), (17, "P", 18), (18, "E", 19)]
    arcs += [(offset + k, letter, offset + j) for offset in (2, 10) for k, letter, j in _PLAIN_REBER]
    choices = [sum(source == k for source, _, _ in arcs) for k in range(20)]
    return _pfa(20, 7, [(k, REBER_SYMBOLS.index(letter), j, 1 / choices[k]) for k, letter, j in arcs])


_PLAIN_REBER = (
    *((0, "B", 1), (1, "T", 2), (1, "P", 3), (2, "S", 2), (2, "X", 4), (3, "T", 3)),
    *((3, "V", 5), (4, "X", 3), (4, "S", 6), (5, "P", 4), (5, "V", 6), (6, "E", 7)),
)
"""Transitions (source, letter, target) of the plain Reber grammar, from state 0 to state 7."""


_TOMITA: dict[int, tuple[list[list[int]], list[int]]] = {
    1: ([[1, 0], [1, 1]], [0]),
    2: ([[2, 1], [0, 2], [2, 2]], [0]),
    3: ([[0, 1], [2, 0], [3, 4], [2, 1], [4, 4]], [0, 1, 3]),
    4: ([[1, 0], [2, 0], [3, 0], [3, 3]], [0, 1, 2]),
    5: ([[1, 2], [0, 3], [3, 0], [2, 1]], [0]),
    6: ([[1, 2], [2, 0], [0, 1]], [0]),
    7: ([[0, 1], [2, 1], [2, 3], [4, 3], [4, 4]], [0, 1, 2, 3]),
}
"""The minimal complete automata: successors of each state for tokens 0 and 1, and the accepting states."""


def tomita_dfa(language: int) -> DFA:
    """Return the minimal complete automaton of one of Tomita's seven languages over the tokens 0 and 1.

    =  =====================================================================
    1  no 0
    2  10 repeated
    3  an odd run of 1s is never directly followed by an odd run of 0s
    4  no 000
    5  an even number of 0s and an even number of 1s
    6  as many 0s as 1s, modulo 3
    7  runs 0*1*0*1*
    =  =====================================================================

    Languages 5 and 7 and the reading of 3 are those of the literature on recurrent networks; some read 3 as "no
    odd run of 0s anywhere after an odd run of 1s".

    Args:
        language: 1..7.

    References:
        Tomita 1982, "Dynamic construction of finite-state automata from examples using hill-climbing".

    Example:
        >>> tomita_dfa(4).states
        4
    """
    successors, accepting = _TOMITA[validation.integer("language", language, 1, 7)]
    return DFA(successors, [k in accepting for k in range(len(successors))])


def tomita(language: int, *, stop: float = 0.12) -> PFA:
    """Return a distribution over exactly the strings of one of Tomita's languages; see :func:`tomita_dfa`.

    An accepting state ends with probability ``stop``; the tokens that still lead to an accepting state share the
    rest equally. There is no dead state.

    Args:
        language: 1..7.
        stop: Probability to end in each accepting state, in (0, 1).

    Example:
        >>> from kdzoo.text.token_sequences import TokenSequences
        >>> tomita(1, stop=0.5).log_prob(TokenSequences.of([[1, 1], [0]])).exp()
        tensor([0.1250, 0.0000], dtype=torch.float64)
    """
    successors, accepting = _TOMITA[validation.integer("language", language, 1, 7)]
    if not validation.probability("stop", stop) > 0:
        raise ConfigError(f"stop must be in (0, 1), got {stop!r}")
    # Sinks, the rejecting states without a way out, have probability 0 and no state in the probabilistic automaton.
    live = [k for k, row in enumerate(successors) if k in accepting or set(row) != {k}]
    arcs: list[_Arc] = []
    for k in live:
        tokens = [a for a in (0, 1) if successors[k][a] in live]
        share = (1 - stop * (k in accepting)) / len(tokens)
        arcs += [(k, a, successors[k][a], share) for a in tokens]
    return _pfa(len(live), 2, arcs)


def uhl(language: int) -> PFA:
    """Return one of three unbounded-history languages, deterministic and with every string possible.

    No finite window of past tokens determines the state. The first two are cycles of 9 and 5 states through which every
    token moves on: in the first, token 0 has probability 0.75 and token 1 has 0.15, which changes places in the
    states 1, 4 and 8; in the second, each of five tokens is preferred in one state. The third counts the parity of
    both tokens, like Tomita's fifth, and prefers token 1 where both are odd.

    Args:
        language: 1..3.

    References:
        Weiss, Goldberg & Yahav 2019, "Learning deterministic weighted automata with queries and counterexamples",
        section 6, and the grammars published with it.

    Example:
        >>> [(pfa.states, pfa.n_tokens, round(float(pfa.stop[0]), 3)) for pfa in map(uhl, (1, 2, 3))]
        [(9, 2, 0.1), (5, 5, 0.045), (4, 2, 0.05)]
    """
    language = validation.integer("language", language, 1, 3)
    if language == 1:
        return _cycle([[0.15, 0.75] if k in (1, 4, 8) else [0.75, 0.15] for k in range(9)])
    if language == 2:
        return _cycle([[1 / 11 + 0.5 * (a == k) for a in range(5)] for k in range(5)])
    # The published grammar stops with 0.05 everywhere; the two tokens share the rest.
    likely, unlikely = 0.525, 0.425
    arcs = [(k, a, k ^ (a + 1), likely if (a == 1) == (k == 3) else unlikely) for k in range(4) for a in (0, 1)]
    return _pfa(4, 2, arcs)


def _cycle(emissions: Sequence[Sequence[float]]) -> PFA:
    """Return the automaton that moves from each state to the next one with every token."""
    K = len(emissions)
    arcs = [(k, a, (k + 1) % K, probability) for k, row in enumerate(emissions) for a, probability in enumerate(row)]
    return _pfa(K, len(emissions[0]), arcs)


def _pfa(states: int, n_tokens: int, arcs: Iterable[_Arc]) -> PFA:
    """Return the automaton with these arcs; it starts in state 0 and stops with the remaining probability."""
    transitions = torch.zeros(n_tokens, states, states, dtype=torch.float64)
    for source, token, target, probability in arcs:
        transitions[token, source, target] = probability
    return PFA.from_parameters(torch.eye(states)[0], transitions, 1 - transitions.sum((0, 2)))


# ---------------------------------------------------------------- the competition's recipe

# Bounds of the competition: the mean length of a target's strings is in [5, 50), and at most one string in a hundred
# has 100 tokens or more.
MEAN_LENGTH = (5.0, 50.0)
LONG = 100

# Rejected draws before giving up. Most sizes succeed within a few; where no draw succeeds, all of them take seconds.
_ATTEMPTS = 1000


def random_pdfa(states: int, symbols: int, *, symbol_density: float | None = None, seed: int = 0) -> PFA:
    """Return a random deterministic target by the recipe of the PAutomaC competition.

    Every state has at least one token, and further pairs of state and token are added at random until they are a
    given share of all pairs; the same share of the states can stop. The probabilities of a state's tokens and of its
    stop are Dirichlet(1), and each pair of state and token leads to one random state. Targets are drawn until every
    state can reach a stop, the mean length is in 5..50 and at most 1 % of the strings have 100 tokens or more.
    Unreachable states are kept.

    Args:
        states: Number of states K >= 1; the competition had 5..74.
        symbols: Number of tokens S >= 1; the competition had 4..23.
        symbol_density: Share of the pairs (state, token) that are possible, in (0, 1], the competition's "symbol
            sparsity"; None draws it from 0.2..0.8 as there.
        seed: Seed of all random draws.

    Raises:
        ConfigError: If an argument is out of range, or no target within these bounds was found.

    References:
        Verwer, Eyraud & de la Higuera 2014, "PAutomaC: a probabilistic automata and hidden Markov models learning
        competition", Machine Learning 96, section 4.

    Example:
        >>> random_pdfa(6, 5, seed=1)
        PFA(vocab_size=6, states=6)
    """
    return _random_target(_of_pairs, states, symbols, symbol_density, 0.0, seed)


def random_pnfa(
    states: int,
    symbols: int,
    *,
    symbol_density: float | None = None,
    transition_density: float | None = None,
    seed: int = 0,
) -> PFA:
    """Return a random non-deterministic target by the recipe of the PAutomaC competition.

    As :func:`random_pdfa`, but several states may begin a string, and a pair of state and token may lead to several
    states, with Dirichlet(1) probabilities.

    Args:
        states: Number of states K >= 1.
        symbols: Number of tokens S >= 1.
        symbol_density: See :func:`random_pdfa`.
        transition_density: Share of the states to which a possible pair leads, on average, and of those that
            begin a string, in (0, 1], the competition's "transition sparsity"; at least one each. None draws it
            from 1/K..0.2 as there.
        seed: Seed of all random draws.

    Raises:
        ConfigError: If an argument is out of range, or no target within the bounds was found.

    Example:
        >>> random_pnfa(8, 4, seed=1).states
        8
    """
    density = None if transition_density is None else _share("transition_density", transition_density)
    return _random_target(_of_pairs, states, symbols, symbol_density, density, seed)


def random_hmm(
    states: int,
    symbols: int,
    *,
    symbol_density: float | None = None,
    transition_density: float | None = None,
    seed: int = 0,
) -> PFA:
    """Return a random hidden Markov model by the recipe of the PAutomaC competition.

    As :func:`random_pnfa`, but where a state leads does not depend on the token.

    Args:
        states: Number of states K >= 1.
        symbols: Number of tokens S >= 1.
        symbol_density: See :func:`random_pdfa`.
        transition_density: See :func:`random_pnfa`.
        seed: Seed of all random draws.

    Raises:
        ConfigError: If an argument is out of range, or no target within the bounds was found.

    Example:
        >>> random_hmm(8, 4, seed=1).states
        8
    """
    density = None if transition_density is None else _share("transition_density", transition_density)
    return _random_target(_of_states, states, symbols, symbol_density, density, seed)


def _random_target(
    rows: Callable[[Tensor], Tensor],
    states: int,
    symbols: int,
    symbol_density: float | None,
    transition_density: float | None,
    seed: int,
) -> PFA:
    """Return the first target drawn from ``seed`` that is within the competition's bounds.

    Args:
        rows: Where a choice of targets has to be made, bool ``[S or 1, K, K]``, given the emissions ``[K, S]``.
        states: Number of states.
        symbols: Number of tokens.
        symbol_density: Share of the possible pairs, or None.
        transition_density: Share of the states that a row leads to, or None; 0 for a single one.
        seed: Seed of all random draws.
    """
    validation.integer("states", states)
    validation.integer("symbols", symbols)
    share = None if symbol_density is None else _share("symbol_density", symbol_density)
    generator = torch.Generator().manual_seed(validation.integer("seed", seed, 0))
    for _ in range(_ATTEMPTS):
        emissions, stop = _random_emissions(states, symbols, share, generator)
        # Drawn again for each attempt, so that a bad draw does not make all attempts fail.
        density = transition_density
        if density is None:
            density = 1 / states + float(_uniform(1, generator)) * (0.2 - 1 / states)
        targets = _dirichlet(_random_support(rows(emissions), density, generator), generator)
        initial = _dirichlet(_random_subset(states, density, generator), generator)
        pfa = PFA.from_parameters(initial, emissions.T[:, :, None] * targets, stop)
        if _is_usable(pfa):
            return pfa
    raise ConfigError(
        f"none of {_ATTEMPTS} random targets with states={states}, symbols={symbols} has a mean length in "
        f"{MEAN_LENGTH[0]:g}..{MEAN_LENGTH[1]:g}; choose other sizes or densities"
    )


def _is_usable(pfa: PFA) -> bool:
    """Return whether every state can reach a stop and the lengths are as in the competition."""
    moves = pfa.transitions.sum(0)
    ends = pfa.stop > 0
    for _ in range(pfa.states):
        ends = ends | ((moves > 0) & ends).any(1)
    if not ends.all():
        return False
    ones = torch.ones_like(pfa.stop)
    mean = float(pfa.initial @ torch.linalg.solve(torch.eye(pfa.states, dtype=torch.float64) - moves, ones)) - 1
    # Probability of at least LONG tokens: the mass that is left after so many steps.
    long = float(pfa.initial @ torch.linalg.matrix_power(moves, LONG) @ ones)
    return MEAN_LENGTH[0] <= mean < MEAN_LENGTH[1] and long <= 0.01


def _random_emissions(
    states: int, symbols: int, density: float | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the probabilities of the tokens ``[K, S]`` and to stop ``[K]``; together they sum to 1 in each state."""
    share = 0.2 + 0.6 * float(_uniform(1, generator)) if density is None else density
    tokens = _random_support(torch.ones(states, symbols, dtype=torch.bool), share, generator)
    probs = _dirichlet(torch.cat([tokens, _random_subset(states, share, generator)[:, None]], 1), generator)
    return probs[:, :-1], probs[:, -1]


def _random_subset(n: int, share: float, generator: torch.Generator) -> Tensor:
    """Choose a share of n elements, at least one, bool ``[n]``."""
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=generator)[: max(1, int(share * n))]] = True
    return chosen


def _random_support(allowed: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Choose a share of the allowed entries, bool ``[..., m]``, and at least one in each row that has any."""
    first = torch.zeros_like(allowed).scatter_(
        -1, _uniform(allowed.shape, generator).masked_fill(~allowed, -1).argmax(-1, keepdim=True), True
    )
    first &= allowed
    n_further = max(0, round(density * int(allowed.sum())) - int(first.sum()))
    order = _uniform(allowed.shape, generator).masked_fill(~allowed | first, -1).flatten()
    chosen = first.flatten()
    chosen[order.topk(n_further).indices] = True
    return chosen.view_as(allowed)


def _of_pairs(emissions: Tensor) -> Tensor:
    """Return ``[S, K, K]``: each possible pair of token and state has its own targets."""
    return (emissions.T > 0)[:, :, None].expand(-1, -1, len(emissions)).contiguous()


def _of_states(emissions: Tensor) -> Tensor:
    """Return ``[1, K, K]``: the targets of a state are the same for all tokens."""
    return torch.ones(1, len(emissions), len(emissions), dtype=torch.bool)


def _dirichlet(support: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the uniform distribution on the simplex over each row's support; empty rows stay 0."""
    # Normalised exponential variables are Dirichlet(1).
    weights = torch.empty(support.shape, dtype=torch.float64).exponential_(generator=generator) * support
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def _uniform(shape: Sequence[int] | int, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def _share(name: str, value: float) -> float:
    """Return the value as a float in (0, 1]."""
    if validation.positive(name, value) > 1:
        raise ConfigError(f"{name} must be in (0, 1], got {value!r}")
    return float(value)
