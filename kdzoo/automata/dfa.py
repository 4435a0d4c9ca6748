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
    """Complete deterministic finite automaton.

    Args:
        transitions: Index of the next state for each state and token, int64 ``[K, S]``.
        accepting: Whether a string may end in each state, bool ``[K]``.
        start: State before the first token, in 0..K-1.

    Raises:
        ConfigError: If a shape does not fit or a state is outside 0..K-1.

    Example:
        >>> even = DFA([[1], [0]], [True, False])
        >>> even.accepts(TokenSequences.of([[], [0], [0, 0]]))
        tensor([ True, False,  True])
    """

    transitions: Tensor
    accepting: Tensor
    start: int = 0

    # Instead of the generated constructor: lists and arrays are converted, which needs object.__setattr__ when frozen.
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
        """Return whether each string is in the language, bool ``[n]``.

        Raises:
            DataError: If a token is outside 0..S-1.
        """
        strings.check(self.vocab_size)
        state = torch.full((len(strings),), self.start)
        for t, token in enumerate(strings.padded(0).unbind(1)):
            state = torch.where(t < strings.lengths, self.transitions[state, token], state)
        return self.accepting[state]

    def minimise(self) -> "DFA":
        """Return the smallest automaton of the same language, with its states in breadth-first order from state 0.

        The result is canonical: equal languages give equal tables.

        Example:
            >>> DFA([[1], [2], [1]], [False, True, False]).minimise().transitions.tolist()
            [[1], [0]]

        References:
            Hopcroft 1971, "An n log n algorithm for minimizing states in a finite automaton".
        """
        # The first pass drops unreachable states, the second numbers the merged ones in canonical order.
        return _breadth_first(_quotient(_breadth_first(self)))


def from_pfa(pfa: PFA, threshold: float = 0.03) -> DFA:
    """Return the automaton of the strings that a probabilistic automaton generates with substantial probability.

    The next state is the most likely one for state and token. Tokens whose probability in a state is below the
    threshold lead to a rejecting sink; a string may end where the stop probability is above the threshold. The
    result is minimal.

    Args:
        pfa: Any automaton. For a deterministic one, only what is below the threshold is lost.
        threshold: Probability in [0, 1); 0 keeps everything that is possible. The default separates what a trained
            teacher generates by mistake (below 1 % of its strings) from the tokens of Tomita's languages.

    Raises:
        ConfigError: If the threshold is out of range.

    Example:
        >>> pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0.98, 0]]], [0.5, 0.02])
        >>> from_pfa(pfa).accepting.tolist(), from_pfa(pfa, threshold=0.01).accepting.tolist()
        ([True, False], [True])
    """
    threshold = validation.probability("threshold", threshold)
    probs = pfa.transitions.sum(2).T
    allowed = (probs > 0) & (probs >= threshold)
    sink = pfa.states
    successors = pfa.transitions.argmax(2).T.masked_fill(~allowed, sink)
    table = torch.cat([successors, torch.full((1, pfa.n_tokens), sink, device=successors.device)]).cpu()
    accepting = torch.cat([pfa.stop > threshold, pfa.stop.new_zeros(1).bool()]).cpu()
    return DFA(table, accepting, int(pfa.initial.argmax())).minimise()


def support(pfa: PFA, max_states: int = 10_000) -> DFA:
    """Return the minimal automaton of all strings of positive probability, by the subset construction.

    Args:
        pfa: Any automaton.
        max_states: Maximum number of subsets of states; there can be 2^K of them.

    Raises:
        ConfigError: If more subsets are reached.
    """
    limit = validation.integer("max_states", max_states)
    possible = (pfa.transitions > 0).cpu().double()
    subsets = [(pfa.initial > 0).cpu()]
    index = {tuple(subsets[0].tolist()): 0}
    table: list[list[int]] = []
    # ``subsets`` grows while its successors are looked up, one row of the table for each.
    while len(table) < len(subsets):
        row = []
        for subset in (subsets[len(table)].double() @ possible) > 0:
            if index.setdefault(tuple(subset.tolist()), len(subsets)) == len(subsets):
                subsets.append(subset)
            row.append(index[tuple(subset.tolist())])
        table.append(row)
        if len(subsets) > limit:
            raise ConfigError(f"the language needs more than max_states={limit} subsets of states")
    ends = (torch.stack(subsets) & (pfa.stop > 0).cpu()).any(1)
    return DFA(table, ends).minimise()


def counterexample(first: DFA, second: DFA) -> list[int] | None:
    """Return a shortest string that is in exactly one of two languages; None if the languages are equal.

    This is a breadth-first search through the product automaton.

    Raises:
        ConfigError: If the automata have different numbers of tokens.

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
    predecessor: dict[tuple[int, int], tuple[tuple[int, int], int] | None] = {root: None}
    queue = deque([root])
    while queue:
        pair = queue.popleft()
        if ends[0][pair[0]] != ends[1][pair[1]]:
            return _path(predecessor, pair)
        for token, successor in enumerate(zip(tables[0][pair[0]], tables[1][pair[1]], strict=True)):
            if successor not in predecessor:
                predecessor[successor] = (pair, token)
                queue.append(successor)
    return None


def equivalent(first: DFA, second: DFA) -> bool:
    """Return whether two automata have the same language; see :func:`counterexample`."""
    return counterexample(first, second) is None


def _path(predecessor: dict[tuple[int, int], tuple[tuple[int, int], int] | None], pair: tuple[int, int]) -> list[int]:
    """Return the tokens that led to a pair."""
    tokens: list[int] = []
    while (step := predecessor[pair]) is not None:
        pair, token = step
        tokens.append(token)
    return tokens[::-1]


def _breadth_first(dfa: DFA) -> DFA:
    """Return the automaton with its reachable states only, numbered in breadth-first order."""
    table = dfa.transitions.tolist()
    index = {dfa.start: 0}
    queue = deque([dfa.start])
    while queue:
        for successor in table[queue.popleft()]:
            if successor not in index:
                index[successor] = len(index)
                queue.append(successor)
    rows = [[index[successor] for successor in table[state]] for state in index]
    return DFA(rows, dfa.accepting[list(index)])


def _quotient(dfa: DFA) -> DFA:
    """Merge the states from which the same strings are accepted; all states must be reachable."""
    block = torch.empty(dfa.states, dtype=torch.int64)
    blocks = _hopcroft(dfa)
    for number, members in enumerate(blocks):
        block[list(members)] = number
    # Any member may represent its block: they all agree on acceptance and on the blocks of their successors.
    representatives = [min(members) for members in blocks]
    return DFA(block[dfa.transitions[representatives]], dfa.accepting[representatives], int(block[dfa.start]))


def _hopcroft(dfa: DFA) -> list[set[int]]:
    """Return the coarsest partition of the states that respects acceptance and transitions."""
    sources: list[list[set[int]]] = [[set() for _ in range(dfa.states)] for _ in range(dfa.n_tokens)]
    for state, row in enumerate(dfa.transitions.tolist()):
        for token, successor in enumerate(row):
            sources[token][successor].add(state)
    accepting = set(dfa.accepting.nonzero()[:, 0].tolist())
    blocks = [block for block in (accepting, set(range(dfa.states)) - accepting) if block]
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
                # Hopcroft's trick: the smaller half is enough as a splitter unless the whole block was waiting anyway.
                smaller = min((number, len(blocks) - 1), key=lambda part: len(blocks[part]))
                waiting.add(len(blocks) - 1 if number in waiting else smaller)
    return blocks
