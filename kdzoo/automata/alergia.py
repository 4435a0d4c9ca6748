"""State merging by ALERGIA, through the optional package aalpy."""

from importlib import import_module
from typing import Any

import torch

from kdzoo.automata.pfa import PFA
from kdzoo.checks import positive
from kdzoo.errors import ConfigError
from kdzoo.strings import Strings

_BEGIN = -1  # the end is token S, as everywhere


def alergia(strings: Strings, vocab_size: int, *, eps: float = 0.05) -> PFA:
    """Return the deterministic automaton that ALERGIA learns from strings.

    aalpy learns a Markov chain whose states carry the symbol that leads to them; the begin and the end of a string
    are symbols of their own, and the probability of the end becomes the stop probability.

    Args:
        strings: the strings, at least one.
        vocab_size: V.
        eps: parameter of Hoeffding's test > 0; less merges more.

    Raises:
        ConfigError: eps is out of range, or aalpy is not installed.
        DataError: a token is outside the alphabet.

    Source:
        Carrasco and Oncina 1994, "Learning stochastic regular grammars by means of a state merging method"; Muskardin
        et al. 2022, "AALpy: an active automata learning library".
    """
    positive("eps", eps)
    strings.check(vocab_size)
    try:
        run = import_module("aalpy").run_Alergia
    except ImportError as error:
        raise ConfigError("alergia needs aalpy: pip install 'kdzoo[automata]'") from error
    data = [[_BEGIN, *one, vocab_size - 1] for one in strings.to_lists()]
    return _pfa(run(data, automaton_type="mc", eps=eps), vocab_size)


def _pfa(chain: Any, vocab_size: int) -> PFA:
    """Return the automaton of a Markov chain with begin and end symbols."""
    states = [state for state in chain.states if state.output != vocab_size - 1]
    number = {state.state_id: i for i, state in enumerate(states)}
    K = len(states)
    initial, stop = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    transitions = torch.zeros(vocab_size - 1, K, K, dtype=torch.float64)
    initial[number[chain.initial_state.state_id]] = 1
    for i, state in enumerate(states):
        for target, share in state.transitions:
            if target.output == vocab_size - 1:
                stop[i] += share
            else:
                transitions[target.output, i, number[target.state_id]] += share
    scale = transitions.sum((0, 2)) + stop
    return PFA.from_parameters(initial, transitions / scale[:, None], stop / scale)
