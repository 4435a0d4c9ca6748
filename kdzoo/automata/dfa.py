"""Deterministic finite automata: extraction from probabilistic ones, minimisation, comparison of languages.

Notation: K states, S tokens; every state has a next state for every token.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences


@dataclass(frozen=True, eq=False)
class DFA:
    """Complete deterministic automaton.

    Args:
        transitions: number of the next state for each state and token, int64 [K, S].
        accepting: whether a string may end in each state, bool [K].
        start: the state before the first token, in 0..K-1.

    Raises:
        ConfigError: a shape does not fit or a state is outside 0..K-1.

    Example:
        >>> even = DFA([[1], [0]], [True, False])
        >>> even.accepts(TokenSequences.of([[], [0], [0, 0]]))
        tensor([ True, False,  True])
    """

    transitions: Tensor
    accepting: Tensor
    start: int = 0

    def __init__(self, transitions: Any, accepting: Any, start: int = 0) -> None:
        table, ends = torch.as_tensor(transitions), torch.as_tensor(accepting)
        if table.ndim != 2 or 0 in table.shape or table.is_floating_point() or ends.shape != table.shape[:1]:
            raise ConfigError(
                f"transitions must be integers [K, S] and accepting [K], K, S >= 1, "
                f"got {table.dtype} {list(table.shape)} and {list(ends.shape)}"
            )
        if table.min() < 0 or table.max() >= len(table):
            raise ConfigError(f"transitions must be in 0..{len(table) - 1}, got {int(table.min())}..{int(table.max())}")
        object.__setattr__(self, "transitions", table.long())
        object.__setattr__(self, "accepting", ends.bool())
        object.__setattr__(self, "start", validation.integer("start", start, least=0, most=len(table) - 1))

    @property
    def states(self) -> int:
        """Number of states K."""
        return self.transitions.shape[0]

    @property
    def n_tokens(self) -> int:
        """Number of tokens S."""
        return self.transitions.shape[1]

    @property
    def vocab_size(self) -> int:
        """Number of tokens with the end token."""
        return self.n_tokens + 1

    def accepts(self, strings: TokenSequences) -> Tensor:
        """Return whether each string is in the language, bool [n].

        Raises:
            DataError: a token is outside 0..S-1.
        """
        strings.check(self.vocab_size)
        state = torch.full((len(strings),), self.start)
        for t, token in enumerate(strings.padded(0).unbind(1)):
            state = torch.where(t < strings.lengths, self.transitions[state, token], state)
        return self.accepting[state]

    def minimise(self) -> "DFA":
        """Return the smallest automaton of the same language, its states in breadth-first order from state 0.

        Equal languages give equal tables.

        Example:
            >>> DFA([[1], [2], [1]], [False, True, False]).minimise().transitions.tolist()
            [[1], [0]]

        Source:
            Hopcroft 1971, "An n log n algorithm for minimizing states in a finite automaton".
        """
        return _breadth_first(_quotient(_breadth_first(self)))


def from_pfa(pfa: PFA, threshold: float = 0.03) -> DFA:
    """Return the automaton of the strings that a probabilistic automaton makes with substantial probability.

    The next state is the likeliest one for state and token. Tokens whose probability in a state is below the
    threshold lead to a rejecting sink; a string may end where the stop probability is above the threshold. The
    result is minimal.

    Args:
        pfa: any automaton; for a deterministic one nothing but the threshold is lost.
        threshold: probability in [0, 1); 0 keeps everything that is possible.

    Raises:
        ConfigError: the threshold is out of range.

    Example:
        >>> pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0.98, 0]]], [0.5, 0.02])
        >>> from_pfa(pfa).accepting.tolist(), from_pfa(pfa, threshold=0.01).accepting.tolist()
        ([True, False], [True])
    """
    threshold = validation.probability("threshold", threshold)
    probs = pfa.transitions.sum(2).T
    kept = (probs > 0) & (probs >= threshold)
    sink = pfa.states
    following = pfa.transitions.argmax(2).T.masked_fill(~kept, sink)
    table = torch.cat([following, torch.full((1, pfa.n_tokens), sink, device=following.device)]).cpu()
    accepting = torch.cat([pfa.stop > threshold, pfa.stop.new_zeros(1).bool()]).cpu()
    return DFA(table, accepting, int(pfa.initial.argmax())).minimise()


def support(pfa: PFA, max_states: int = 10_000) -> DFA:
    """Return the minimal automaton of all strings of positive probability, by the subset construction.

    Args:
        pfa: any automaton.
        max_states: number of subsets of states at which to give up.

    Raises:
        ConfigError: there are more subsets.
    """
    limit = validation.integer("max_states", max_states)
    possible = (pfa.transitions > 0).cpu().double()
    subsets = [(pfa.initial > 0).cpu()]
    number = {tuple(subsets[0].tolist()): 0}
    table: list[list[int]] = []
    while len(table) < len(subsets):
        row = []
        for subset in (subsets[len(table)].double() @ possible) > 0:
            if number.setdefault(tuple(subset.tolist()), len(subsets)) == len(subsets):
                subsets.append(subset)
            row.append(number[tuple(subset.tolist())])
        table.append(row)
        if len(subsets) > limit:
            raise ConfigError(f"the language needs more than max_states={limit} subsets of states")
    ends = (torch.stack(subsets) & (pfa.stop > 0).cpu()).any(1)
    return DFA(table, ends).minimise()


def counterexample(first: DFA, second: DFA) -> list[int] | None:
    """Return a shortest string that is in one of two languages only; None if the languages are equal.

    Breadth-first search through the product automaton.

    Raises:
        ConfigError: the automata have different numbers of tokens.

    Example:
        >>> counterexample(DFA([[1], [1]], [True, False]), DFA([[0]], [True]))
        [0]
    """
    if first.n_tokens != second.n_tokens:
        raise ConfigError(
            f"both automata must have the same tokens, got {first.n_tokens} and {second.n_tokens} of them"
        )
    tables = first.transitions.tolist(), second.transitions.tolist()
    ends = first.accepting.tolist(), second.accepting.tolist()
    root = (first.start, second.start)
    before: dict[tuple[int, int], tuple[tuple[int, int], int] | None] = {root: None}
    queue = deque([root])
    while queue:
        pair = queue.popleft()
        if ends[0][pair[0]] != ends[1][pair[1]]:
            return _path(before, pair)
        for token, following in enumerate(zip(tables[0][pair[0]], tables[1][pair[1]], strict=True)):
            if following not in before:
                before[following] = (pair, token)
                queue.append(following)
    return None


def equivalent(first: DFA, second: DFA) -> bool:
    """Return whether two automata have the same language; see :func:`counterexample`."""
    return counterexample(first, second) is None


def _path(before: dict[tuple[int, int], tuple[tuple[int, int], int] | None], pair: tuple[int, int]) -> list[int]:
    """Return the tokens that led to a pair."""
    tokens: list[int] = []
    while (step := before[pair]) is not None:
        pair, token = step
        tokens.append(token)
    return tokens[::-1]


def _breadth_first(dfa: DFA) -> DFA:
    """Return the automaton with its reachable states only, numbered in breadth-first order."""
    table = dfa.transitions.tolist()
    number = {dfa.start: 0}
    queue = deque([dfa.start])
    while queue:
        for following in table[queue.popleft()]:
            if following not in number:
                number[following] = len(number)
                queue.append(following)
    rows = [[number[following] for following in table[state]] for state in number]
    return DFA(rows, dfa.accepting[list(number)])


def _quotient(dfa: DFA) -> DFA:
    """Merge the states from which the same strings are accepted; all states are reachable."""
    block = torch.empty(dfa.states, dtype=torch.int64)
    blocks = _hopcroft(dfa)
    for number, members in enumerate(blocks):
        block[list(members)] = number
    leaders = [min(members) for members in blocks]
    return DFA(block[dfa.transitions[leaders]], dfa.accepting[leaders], int(block[dfa.start]))


def _hopcroft(dfa: DFA) -> list[set[int]]:
    """Return the coarsest partition of the states that respects acceptance and transitions."""
    sources: list[list[set[int]]] = [[set() for _ in range(dfa.states)] for _ in range(dfa.n_tokens)]
    for state, row in enumerate(dfa.transitions.tolist()):
        for token, following in enumerate(row):
            sources[token][following].add(state)
    accepting = set(dfa.accepting.nonzero()[:, 0].tolist())
    blocks = [one for one in (accepting, set(range(dfa.states)) - accepting) if one]
    block_of = {state: number for number, members in enumerate(blocks) for state in members}
    waiting = {0}
    while waiting:
        splitter = list(blocks[waiting.pop()])
        for by_target in sources:
            leading = set().union(*(by_target[state] for state in splitter))
            for number in {block_of[state] for state in leading}:
                inside = blocks[number] & leading
                if len(inside) == len(blocks[number]):
                    continue
                blocks[number] = blocks[number] - inside
                blocks.append(inside)
                block_of.update(dict.fromkeys(inside, len(blocks) - 1))
                smaller = min((number, len(blocks) - 1), key=lambda one: len(blocks[one]))
                waiting.add(len(blocks) - 1 if number in waiting else smaller)
    return blocks
