r"""Queries on a probabilistic automaton: probabilities of prefixes and infixes, Viterbi paths, lengths, entropy.

Notation: K states, S tokens; initial iota, transitions A_a, :math:`A = \sum_a A_a`, stop rho. The expected number
of visits of each state is :math:`\iota' (I - A)^{-1}`, over the states that are reachable and can reach a stop.
An automaton is consistent if every reachable state can reach a stop; then the probabilities of all strings add up to 1.
That sum is only as accurate as the parameters: a rounding error of 1e-16 in a row becomes 1e-16 times the expected
length.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kdzoo.automata.forward import CELLS, Layer, chunks, layers, log_prob, scaled_forward
from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

# Tokens after which a random string is cut, far beyond the length of strings that anybody would estimate from.
MAX_LENGTH = 1_000_000


class Paths(NamedTuple):
    """The most likely sequences of states behind strings.

    Attributes:
        states: The state after each of the N prefixes of the strings, int64 ``[N]``; -1 along impossible strings.
        log_prob: Log-probability of string and states together, float64 ``[n]``.
    """

    states: Tensor
    log_prob: Tensor


class Estimate(NamedTuple):
    """A mean over random strings and its standard error."""

    value: float
    error: float


def reachable(pfa: PFA) -> Tensor:
    """Return which states can be reached from an initial state, bool ``[K]``."""
    return _closure(pfa.initial > 0, pfa.transitions.sum(0) > 0)


def terminating(pfa: PFA) -> Tensor:
    """Return from which states a stop can be reached, bool ``[K]``."""
    return _closure(pfa.stop > 0, pfa.transitions.sum(0).T > 0)


def consistent(pfa: PFA) -> bool:
    """Return whether every reachable state can reach a stop.

    Example:
        >>> consistent(PFA(3)), consistent(PFA.from_parameters([1], [[[1]]], [0]))
        (True, False)
    """
    return bool((terminating(pfa) | ~reachable(pfa)).all())


def total_mass(pfa: PFA) -> float:
    r"""Return the sum of the probabilities of all strings, :math:`\iota' (I - A)^{-1} \rho`.

    Example:
        >>> total_mass(PFA.from_parameters([1, 0], [[[0, 0.5], [0, 1]]], [0.5, 0]))
        0.5
    """
    # I - A is singular on states that never end, so the linear system is restricted to the useful ones.
    useful = reachable(pfa) & terminating(pfa)
    if not useful.any():
        return 0.0
    step = pfa.transitions.sum(0)[useful][:, useful]
    ends = torch.linalg.solve(torch.eye(len(step), dtype=step.dtype, device=step.device) - step, pfa.stop[useful])
    return float(pfa.initial[useful] @ ends)


def expected_visits(pfa: PFA) -> Tensor:
    r"""Return how often a string visits each state on average, :math:`\iota' (I - A)^{-1}`, float64 ``[K]``.

    Reachable states that never come to a stop are visited infinitely often.
    """
    reached = reachable(pfa)
    useful = reached & terminating(pfa)
    visits = torch.full_like(pfa.stop, torch.inf).masked_fill(~reached, 0.0)
    step = pfa.transitions.sum(0)[useful][:, useful]
    eye = torch.eye(len(step), dtype=step.dtype, device=step.device)
    visits[useful] = torch.linalg.solve((eye - step).T, pfa.initial[useful])
    return visits


def expected_length(pfa: PFA) -> float:
    """Return the mean number of tokens of a string, without its end; inf unless the automaton is consistent.

    Example:
        >>> expected_length(PFA.from_parameters([1], [[[0.75]]], [0.25]))
        3.0
    """
    # A string of m tokens visits m + 1 states.
    return float(expected_visits(pfa).sum()) - 1


def prefix_log_prob(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return the log-probability that a random string begins with each of these, float64 ``[n]``.

    Raises:
        DataError: If a token is outside 0..S-1.

    Example:
        >>> prefix_log_prob(PFA(vocab_size=2), TokenSequences.of([[], [0]])).exp()
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    strings.check(pfa.vocab_size)
    return log_prob(pfa.initial, pfa.transitions, torch.ones_like(pfa.stop), strings)


def infix_expectation(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return how often each of these occurs within a random string on average, float64 ``[n]``.

    Overlapping occurrences all count. The empty string occurs m + 1 times in a string of m tokens.

    Raises:
        ConfigError: If the automaton is not consistent.
        DataError: If a token is outside 0..S-1.

    Example:
        >>> infix_expectation(PFA.from_parameters([1], [[[0.75]]], [0.25]), TokenSequences.of([[0], [0, 0]]))
        tensor([3.0000, 2.2500], dtype=torch.float64)
    """
    strings.check(pfa.vocab_size)
    _check_consistent(pfa)
    return log_prob(expected_visits(pfa), pfa.transitions, torch.ones_like(pfa.stop), strings).exp()


def infix_probability(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return the probability that a random string contains each of these at least once, float64 ``[n]``.

    One linear system of K m unknowns for a string of m tokens.

    Raises:
        ConfigError: If the automaton is not consistent.
        DataError: If a token is outside 0..S-1.

    Example:
        >>> infix_probability(PFA.from_parameters([1], [[[0.75]]], [0.25]), TokenSequences.of([[0], [0, 0], []]))
        tensor([0.7500, 0.5625, 1.0000], dtype=torch.float64)

    References:
        Knuth, Morris and Pratt 1977, "Fast pattern matching in strings", for the automaton of a pattern.
    """
    strings.check(pfa.vocab_size)
    _check_consistent(pfa)
    # The empty pattern is in every string; an automaton for it is not needed.
    values = [_occurrence(pfa, pattern) if pattern else 1.0 for pattern in strings.to_lists()]
    return torch.tensor(values, dtype=torch.float64, device=pfa.stop.device)


def viterbi(pfa: PFA, strings: TokenSequences) -> Paths:
    """Return the most likely sequence of states behind each string.

    Raises:
        DataError: If a token is outside 0..S-1.

    Example:
        >>> pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0.2, 0]]], [0.5, 0.8])
        >>> viterbi(pfa, TokenSequences.of([[0, 0], [0]])).states.tolist()
        [0, 1, 0, 0, 1]

    References:
        Viterbi 1967; for automata see Vidal et al. 2005, "Probabilistic finite-state machines, part I".
    """
    strings.check(pfa.vocab_size)
    paths = Paths(strings.tokens.new_empty(strings.n_prefixes), torch.empty(len(strings), dtype=torch.float64))
    initial, transitions, stop = (buffer.cpu().log() for buffer in (pfa.initial, pfa.transitions, pfa.stop))
    roots, longest = strings.first_prefixes(), int(strings.lengths.max()) if len(strings) else 0
    # Viterbi keeps the origin of every state of a string until its end, so a string needs K (length + 1) cells.
    for chunk in chunks(strings, pfa.states * (longest + 1)):
        trellis = layers(strings.select(chunk))
        paths.log_prob[chunk], states = _best_paths(initial, transitions, stop, trellis)
        for depth, (layer, state) in enumerate(zip(trellis, states, strict=True)):
            paths.states[roots[chunk[layer.string]] + depth] = state
    return paths


def entropy(pfa: PFA) -> float:
    """Return the entropy in nats of the distribution over strings of a deterministic automaton.

    A string of a deterministic automaton determines its states, so that the entropy is the expected sum of the
    entropies of the next symbol. Other automata have no closed form.

    Raises:
        ConfigError: If the automaton is not deterministic or not consistent; see
            :func:`kdzoo.automata.simplify.determinise` and :func:`entropy_monte_carlo`.

    Example:
        >>> round(entropy(PFA.from_parameters([1], [[[0.5]]], [0.5])), 6)  # 2 log 2
        1.386294
    """
    _check_consistent(pfa)
    if not pfa.deterministic:
        raise ConfigError(
            "entropy is exact for a deterministic automaton only; determinise it or use entropy_monte_carlo"
        )
    local = -torch.xlogy(pfa.emissions, pfa.emissions).sum(1)
    return float(expected_visits(pfa) @ local)


def entropy_rate(pfa: PFA) -> float:
    """Return the entropy in nats per symbol, where the end of a string counts as a symbol; see :func:`entropy`."""
    return entropy(pfa) / (expected_length(pfa) + 1)


def entropy_monte_carlo(pfa: PFA, n: int, seed: int) -> Estimate:
    """Estimate the entropy of the distribution over strings, in nats, from random strings.

    The estimate averages the entropy of the next symbol along the strings, which has less variance than the
    log-probability of the strings.

    Args:
        pfa: Any consistent automaton.
        n: Number of random strings, >= 2.
        seed: Seed of the draws, >= 0.

    Raises:
        ConfigError: If n or the seed is out of range, or the automaton is not consistent.
    """
    _check_consistent(pfa)
    strings = pfa.sample(validation.integer("n", n, least=2), seed, MAX_LENGTH)
    per_string = _summed_entropies(pfa, strings)
    return Estimate(float(per_string.mean()), float(per_string.std() / n**0.5))


def entropy_rate_monte_carlo(pfa: PFA, n: int, seed: int) -> Estimate:
    """Estimate the entropy in nats per symbol; see :func:`entropy_monte_carlo`."""
    value, error = entropy_monte_carlo(pfa, n, seed)
    # The expected number of symbols is exact, so it only scales the error.
    symbols = expected_length(pfa) + 1
    return Estimate(value / symbols, error / symbols)


def _summed_entropies(pfa: PFA, strings: TokenSequences) -> Tensor:
    """Return the sum of the next symbol's entropies along each string ``[n]``."""
    emissions, result = pfa.emissions, pfa.stop.new_zeros(len(strings))
    for chunk in chunks(strings, pfa.states):
        trellis = layers(strings.select(chunk))
        for layer, (belief, _) in zip(trellis, scaled_forward(pfa.initial, pfa.transitions, trellis), strict=True):
            probs = belief @ emissions
            result[chunk[layer.string]] -= torch.xlogy(probs, probs).sum(1)
    return result


def _check_consistent(pfa: PFA) -> None:
    dead = (reachable(pfa) & ~terminating(pfa)).nonzero()
    if len(dead):
        raise ConfigError(f"the automaton is not consistent: a string that reaches state {int(dead[0])} never ends")


def _closure(start: Tensor, step: Tensor) -> Tensor:
    """Return the states ``[K]`` that can be reached from the start ``[K]`` by transitions ``[K, K]``, bool."""
    reached = start
    while not torch.equal(start, reached := start | (start.double() @ step.double() > 0)):
        start = reached
    return reached


def _occurrence(pfa: PFA, pattern: list[int]) -> float:
    """Return the probability that a string contains the pattern of m >= 1 tokens.

    The unknowns are the probabilities that the pattern will be completed, for each state and each number j < m of
    pattern tokens that have just been read.
    """
    m, K = len(pattern), pfa.states
    matching = _matching_automaton(pattern, pfa.n_tokens)
    step, hit = pfa.stop.new_zeros(m, K, m, K), pfa.stop.new_zeros(m, K)
    for n_matched in range(m):
        for token, successor in enumerate(matching[n_matched]):
            if successor == m:
                hit[n_matched] += pfa.transitions[token].sum(1)
            else:
                step[n_matched, :, successor] += pfa.transitions[token]
    # Unreachable states may never end, and the system would be singular with them.
    used = reachable(pfa).repeat(m)
    system = torch.eye(m * K, dtype=step.dtype, device=step.device) - step.reshape(m * K, m * K)
    completed = torch.zeros_like(hit.flatten())
    completed[used] = torch.linalg.solve(system[used][:, used], hit.flatten()[used])
    return float(pfa.initial @ completed[:K])


def _matching_automaton(pattern: list[int], n_tokens: int) -> list[list[int]]:
    """Return the Knuth-Morris-Pratt automaton: the matched length after j < m matched tokens and one more token."""
    table: list[list[int]] = []
    # State after reading the matched part without its first token; mismatches continue from there.
    fallback = 0
    for n_matched, token in enumerate(pattern):
        row = list(table[fallback]) if n_matched else [0] * n_tokens
        restart = row[token]
        row[token] = n_matched + 1
        table.append(row)
        fallback = restart if n_matched else 0
    return table


def _best_paths(
    initial: Tensor, transitions: Tensor, stop: Tensor, trellis: list[Layer]
) -> tuple[Tensor, list[Tensor]]:
    """Return log-probability ``[n]`` and states layer by layer ``[b]`` of the best paths, from log-parameters."""
    best = initial.expand(len(trellis[0].string), -1)
    result = best.new_empty(len(best))
    finals, origins = [], []
    for layer in trellis:
        if layer.groups:
            best, origin = _best_step(best[layer.source], transitions, layer)
            origins.append(origin)
        result[layer.string[layer.lasts]], final = (best[layer.lasts] + stop).max(1)
        finals.append(final.masked_fill(result[layer.string[layer.lasts]].isneginf(), -1))
    return result, _trace_back(trellis, finals, origins)


def _best_step(best: Tensor, transitions: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Return the best log-probability of each next state ``[b, K]``, and the state before it ``[b, K]``."""
    value, origin = torch.empty_like(best), torch.empty_like(best, dtype=torch.int64)
    # A maximum has no matrix product: the sums [rows, K, K] exist in memory, so the rows go in small parts.
    size = max(1, CELLS // best.shape[1] ** 2)
    for token, first, end in layer.groups:
        for low in range(first, end, size):
            rows = slice(low, min(low + size, end))
            value[rows], origin[rows] = (best[rows, :, None] + transitions[token]).max(1)
    return value, origin


def _trace_back(trellis: list[Layer], finals: list[Tensor], origins: list[Tensor]) -> list[Tensor]:
    """Return the states of each layer ``[b]`` from the final ones, following the origins backwards."""
    states: list[Tensor] = [torch.empty(0)] * len(trellis)
    for depth in reversed(range(len(trellis))):
        layer = trellis[depth]
        state = torch.full_like(layer.string, -1)
        state[layer.lasts] = finals[depth]
        if depth + 1 < len(trellis):
            after, later = states[depth + 1], trellis[depth + 1]
            origin = origins[depth].gather(1, after.clamp(min=0)[:, None]).squeeze(1)
            state[later.source] = torch.where(after >= 0, origin, -1)
        states[depth] = state
    return states
