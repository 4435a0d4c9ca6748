"""Automata as objects of AALpy (``pip install aalpy``), and back.

AALpy's Markov chains carry the symbol on the state and never stop. A chain made here begins in a separate state, has
one state for each pair of a token and the state that it leads to, and a state without transitions for the end.
"""

from collections.abc import Hashable
from importlib import import_module
from typing import Any

import torch

from kdzoo.automata.dfa import DFA
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError

# What the first and the last state of a chain emit; strings, so that they cannot be mistaken for tokens.
START, END = "start", "end"


def to_markov_chain(pfa: PFA) -> Any:
    """Return an automaton as an AALpy MarkovChain with the same distribution over strings.

    Its states emit "start", the tokens as ints, or "end". It has one state for each pair (token, next state) of
    positive probability, so it may be up to S times as large.

    Raises:
        ConfigError: AALpy is not installed.
    """
    aalpy = _aalpy()
    pairs = [(token, target) for target, token in pfa.transitions.sum(1).T.nonzero().tolist()]
    inner = {pair: aalpy.McState(f"s{index}", pair[0]) for index, pair in enumerate(pairs, 1)}
    start, end = aalpy.McState("s0", START), aalpy.McState(f"s{len(pairs) + 1}", END)
    for state, belief in [(start, pfa.initial), *((inner[pair], _at(pfa, pair[1])) for pair in pairs)]:
        # A distribution over states rather than one state, as the automaton may begin in several.
        successors = torch.einsum("k,akl->al", belief, pfa.transitions)
        state.transitions = [
            (inner[token, target], float(successors[token, target])) for token, target in successors.nonzero().tolist()
        ]
        if (stop := float(belief @ pfa.stop)) > 0:
            state.transitions.append((end, stop))
    return aalpy.MarkovChain(start, [start, *inner.values(), end])


def from_markov_chain(model: Any, n_tokens: int | None = None, *, end: Hashable = END) -> PFA:
    """Return the automaton of an AALpy MarkovChain whose strings stop at a state that emits ``end``.

    The symbol of the initial state is not part of a string. The other states emit tokens, ints 0..S-1.

    Args:
        model: The chain, such as :func:`to_markov_chain` makes or ``run_Alergia(..., automaton_type="mc")``
            learns from strings that begin with a dummy and end with ``end``.
        n_tokens: Number of tokens S; None for the largest + 1.
        end: What the states at the end of a string emit; they become the stop probability.

    Raises:
        ConfigError: If a state emits something else, or the probabilities of a state do not sum to 1.
    """
    states = [state for state in model.states if state is model.initial_state or state.output != end]
    # By identity, which does not depend on how AALpy names and compares its states.
    index = {id(state): k for k, state in enumerate(states)}
    arcs: list[tuple[int, int, int, float]] = []
    stop = torch.zeros(len(states), dtype=torch.float64)
    for k, state in enumerate(states):
        for successor, probability in state.transitions:
            if successor.output == end:
                stop[k] += probability
            else:
                arcs.append((_token(successor.output, n_tokens), k, index[id(successor)], probability))
    S = max([1, *(token + 1 for token, *_ in arcs)]) if n_tokens is None else n_tokens
    transitions = torch.zeros(S, len(states), len(states), dtype=torch.float64)
    for token, source, target, probability in arcs:
        transitions[token, source, target] += probability
    initial = torch.zeros(len(states), dtype=torch.float64)
    initial[index[id(model.initial_state)]] = 1
    return PFA.from_parameters(initial, transitions, stop)


def to_aalpy_dfa(dfa: DFA) -> Any:
    """Return a deterministic automaton as an AALpy Dfa over the ints 0..S-1.

    Raises:
        ConfigError: AALpy is not installed.
    """
    aalpy = _aalpy()
    states = [aalpy.DfaState(f"s{k}", accepts) for k, accepts in enumerate(dfa.accepting.tolist())]
    for state, row in zip(states, dfa.transitions.tolist(), strict=True):
        state.transitions = {token: states[successor] for token, successor in enumerate(row)}
    return aalpy.Dfa(states[dfa.start], states)


def from_aalpy_dfa(model: Any) -> DFA:
    """Return the automaton of a complete AALpy Dfa over the ints 0..S-1.

    Raises:
        ConfigError: If a state has no transition for some token.
    """
    index = {id(state): k for k, state in enumerate(model.states)}
    S = 1 + max((token for state in model.states for token in state.transitions), default=-1)
    for state in model.states:
        if sorted(state.transitions) != list(range(S)):
            raise ConfigError(f"state {state.state_id} has the tokens {sorted(state.transitions)}; allowed: 0..{S - 1}")
    table = [[index[id(state.transitions[token])] for token in range(S)] for state in model.states]
    return DFA(table, [state.is_accepting for state in model.states], index[id(model.initial_state)])


def _token(output: Any, n_tokens: int | None) -> int:
    """Return the symbol of a state if it is a token, and reject it otherwise."""
    # bool is a subclass of int, but True is not a token.
    if isinstance(output, bool) or not isinstance(output, int) or output < 0 or output >= (n_tokens or output + 1):
        allowed = ">= 0" if n_tokens is None else f"in 0..{n_tokens - 1}"
        raise ConfigError(f"a state of the Markov chain emits {output!r}; allowed: an integer {allowed}")
    return output


def _at(pfa: PFA, state: int) -> torch.Tensor:
    """Return the distribution that is concentrated on one state ``[K]``."""
    belief = torch.zeros_like(pfa.initial)
    belief[state] = 1
    return belief


def _aalpy() -> Any:
    # An optional dependency, imported when it is used.
    try:
        return import_module("aalpy.automata")
    except ImportError as error:
        raise ConfigError("AALpy objects need AALpy: pip install aalpy") from error
