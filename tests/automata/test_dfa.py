"""Deterministic automata against acceptance of enumerated strings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.dfa import DFA, counterexample, equivalent, from_pfa, support
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import random_parameters, strings_up_to

property_settings = settings(max_examples=100, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
LISTED = strings_up_to(2, 8)
ALL = TokenSequences.of(LISTED)


def random_dfa(states, seed):
    rng = np.random.default_rng(seed)
    return DFA(rng.integers(states, size=(states, 2)), rng.random(states) < 0.5, int(rng.integers(states)))


def n_classes(dfa):
    """Number of reachable states that strings of up to K tokens tell apart."""
    reached = {dfa.start}
    for _ in range(dfa.states):
        reached |= {int(one) for state in reached for one in dfa.transitions[state]}
    tests = TokenSequences.of(strings_up_to(dfa.n_tokens, dfa.states))
    return len({tuple(DFA(dfa.transitions, dfa.accepting, state).accepts(tests).tolist()) for state in reached})


def test_acceptance_follows_the_table():
    dfa = DFA([[1, 0], [2, 1], [0, 2]], [True, False, False])  # the number of 0s is a multiple of 3
    assert dfa.accepts(ALL).tolist() == [one.count(0) % 3 == 0 for one in LISTED]
    assert (dfa.states, dfa.n_tokens, dfa.vocab_size) == (3, 2, 3)


class TestMinimise:
    @given(st.integers(1, 6), seeds)
    @property_settings
    def test_the_language_stays_and_no_state_is_superfluous(self, states, seed):
        dfa = random_dfa(states, seed)
        minimal = dfa.minimise()
        assert torch.equal(minimal.accepts(ALL), dfa.accepts(ALL))
        assert minimal.states == n_classes(dfa)

    @given(st.integers(1, 30), seeds)
    @property_settings
    def test_equal_languages_give_equal_tables(self, states, seed):
        dfa = random_dfa(states, seed)
        order = np.random.default_rng(seed).permutation(2 * states)
        place = np.argsort(order)
        # two copies of each state, entered at random, in random order
        copies = np.random.default_rng(seed + 1).integers(2, size=(2 * states, 2))
        table = np.tile(dfa.transitions.numpy(), (2, 1)) + states * copies
        ends = np.tile(dfa.accepting.numpy(), 2)
        other = DFA(place[table][order], ends[order], int(place[dfa.start]))
        first, second = dfa.minimise(), other.minimise()
        assert first.transitions.tolist() == second.transitions.tolist()
        assert first.accepting.tolist() == second.accepting.tolist()


class TestCounterexample:
    @given(st.integers(1, 4), st.integers(1, 4), seeds)
    @property_settings
    def test_it_is_a_shortest_difference(self, first, second, seed):
        one, two = random_dfa(first, seed), random_dfa(second, seed + 1)
        differ = [LISTED[i] for i in (one.accepts(ALL) != two.accepts(ALL)).nonzero()[:, 0]]
        found = counterexample(one, two)
        assert equivalent(one, two) == (not differ)  # automata of 4 states differ by 6 tokens if at all
        if differ:
            assert found in differ
            assert len(found) == len(differ[0])
        else:
            assert found is None

    def test_other_alphabets_are_refused(self):
        with pytest.raises(ConfigError, match="same tokens, got 1 and 2"):
            counterexample(DFA([[0]], [True]), DFA([[0, 0]], [True]))


class TestFromPFA:
    @given(st.integers(1, 5), seeds, st.sampled_from([0.3, 0.7]))
    @property_settings
    def test_without_threshold_it_is_the_support(self, states, seed, density):
        pfa = PFA.from_parameters(*random_parameters(states, 2, seed, density=density, deterministic=True))
        possible = pfa.log_prob(ALL).isfinite()
        assert torch.equal(from_pfa(pfa, threshold=0).accepts(ALL), possible)
        assert counterexample(from_pfa(pfa, threshold=0), support(pfa)) is None

    @given(st.integers(1, 5), seeds, st.sampled_from([0.2, 0.5]))
    @property_settings
    def test_the_support_of_nondeterministic_automata(self, states, seed, density):
        initial, transitions, stop = random_parameters(states, 2, seed, density=density)
        stop[0], transitions[0, 0, 0] = 0, transitions[0, 0, 0] + stop[0]
        pfa = PFA.from_parameters(initial, transitions, stop)
        assert torch.equal(support(pfa).accepts(ALL), pfa.log_prob(ALL).isfinite())

    def test_the_threshold_removes_what_is_rare(self):
        # (ab)* ends after b; a second b and an end after a are noise
        step = [[[0, 0.6], [0, 0]], [[0.02, 0], [0.98, 0]]]
        pfa = PFA.from_parameters([1, 0], step, [0.38, 0.02])
        noisy = TokenSequences.of([[1], [0], [0, 1, 1, 0]])
        regular = TokenSequences.of([[], [0, 1], [0, 1, 0, 1]])
        kept, everything = from_pfa(pfa), from_pfa(pfa, threshold=0.01)
        assert everything.accepts(noisy).all()
        assert everything.accepts(regular).all()
        assert not kept.accepts(noisy).any()
        assert kept.accepts(regular).all()

    def test_too_many_subsets_are_refused(self):
        pfa = PFA.from_parameters(*random_parameters(12, 2, 0, density=0.15))
        with pytest.raises(ConfigError, match="max_states=5 subsets"):
            support(pfa, max_states=5)

    @pytest.mark.parametrize("threshold", [-0.1, 1.0, True])
    def test_thresholds_out_of_range_are_refused(self, threshold):
        with pytest.raises(ConfigError, match="threshold must be in"):
            from_pfa(PFA(3), threshold=threshold)


@pytest.mark.parametrize(
    ("table", "accepting", "start", "message"),
    [
        ([[0, 2], [1, 0]], [True, False], 0, r"transitions must be in 0\.\.1, got 0\.\.2"),
        ([[0], [-1]], [True, False], 0, r"got -1\.\.0"),
        ([[0]], [True, False], 0, r"got torch.int64 \[1, 1\] and \[2\]"),
        ([[0.0]], [True], 0, "must be integers"),
        ([[0]], [True], 1, r"start must be an integer in 0\.\.0, got 1"),
    ],
)
def test_invalid_tables_are_refused(table, accepting, start, message):
    with pytest.raises(ConfigError, match=message):
        DFA(table, accepting, start)


def test_tokens_outside_the_alphabet_are_refused():
    with pytest.raises(DataError, match="sequence 0 has token 1"):
        DFA([[0]], [True]).accepts(TokenSequences.of([[1]]))
