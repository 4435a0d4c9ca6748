"""AALpy's objects walk and accept like the automata they were made from."""

import pytest
import torch

from kdzoo.automata.exchange.aalpy import from_aalpy_dfa, from_markov_chain, to_aalpy_dfa, to_markov_chain
from kdzoo.automata.targets import embedded_reber, tomita, tomita_dfa
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings


def test_a_markov_chain_walks_like_the_automaton():
    pytest.importorskip("aalpy")
    chain = to_markov_chain(embedded_reber())
    assert (chain.states[0].output, chain.states[-1].output) == ("start", "end")
    for state in chain.states[:-1]:
        assert sum(probability for _, probability in state.transitions) == pytest.approx(1, abs=1e-12)
    assert chain.states[-1].transitions == []
    state, probability = chain.initial_state, 1.0
    for output in [*("BTPSXVE".index(letter) for letter in "BTBPVVETE"), "end"]:
        following = [one for one in state.transitions if one[0].output == output]
        assert len(following) == 1
        state, probability = following[0][0], probability * following[0][1]
    assert probability == pytest.approx(1 / 16)


def test_alergia_learns_a_chain_that_is_read():
    learning = pytest.importorskip("aalpy.learning_algs")
    strings = tomita(2).sample(1000, seed=0, max_length=100)
    rows = [["start", *string, 2] for string in strings.to_lists()]  # ALERGIA compares symbols, so the end is an int
    pfa = from_markov_chain(learning.run_Alergia(rows, automaton_type="mc", eps=0.1), 2, end=2)
    assert pfa.log_prob(TokenSequences.of([[1], [0], [1, 0, 1]])).isneginf().all()
    assert float(pfa.log_prob(strings).mean()) == pytest.approx(float(tomita(2).log_prob(strings).mean()), abs=0.1)


def test_chains_that_are_not_automata_are_refused():
    automata = pytest.importorskip("aalpy.automata")
    start, odd = automata.McState("a", "start"), automata.McState("b", "x")
    start.transitions = [(odd, 1.0)]
    with pytest.raises(ConfigError, match="a state of the Markov chain emits 'x'; allowed"):
        from_markov_chain(automata.MarkovChain(start, [start, odd]))
    odd.output = 4
    with pytest.raises(ConfigError, match=r"emits 4; allowed: an integer in 0..1"):
        from_markov_chain(automata.MarkovChain(start, [start, odd]), 2)
    with pytest.raises(ConfigError, match=r"stop of state 1 must sum to 1, got 0\.0"):
        from_markov_chain(automata.MarkovChain(start, [start, odd]))


@pytest.mark.parametrize("language", range(1, 8))
def test_dfa_round_trip(language):
    pytest.importorskip("aalpy")
    dfa = tomita_dfa(language)
    model = to_aalpy_dfa(dfa)
    words = torch.randint(2, (50, 6), generator=torch.Generator().manual_seed(0)).tolist()
    accepted = dfa.accepts(TokenSequences.of(words)).tolist()
    assert [model.execute_sequence(model.initial_state, word)[-1] for word in words] == accepted
    again = from_aalpy_dfa(model)
    assert torch.equal(again.transitions, dfa.transitions)
    assert torch.equal(again.accepting, dfa.accepting)


def test_incomplete_dfas_are_refused():
    pytest.importorskip("aalpy")
    model = to_aalpy_dfa(tomita_dfa(2))
    del model.states[1].transitions[0]
    with pytest.raises(ConfigError, match=r"state s1 has the tokens \[1\]; allowed: 0..1"):
        from_aalpy_dfa(model)


def test_without_aalpy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aalpy.automata", None)
    with pytest.raises(ConfigError, match="AALpy objects need AALpy: pip install aalpy"):
        to_markov_chain(tomita(1))


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name):
    pfa = AUTOMATA[name]
    pytest.importorskip("aalpy")
    again = from_markov_chain(to_markov_chain(pfa), pfa.n_tokens)
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
