"""Queries on automata against sums over enumerated strings and state paths."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import (
    consistent,
    entropy,
    entropy_monte_carlo,
    entropy_rate,
    entropy_rate_monte_carlo,
    expected_length,
    expected_visits,
    infix_expectation,
    infix_probability,
    prefix_log_prob,
    reachable,
    terminating,
    total_mass,
    viterbi,
)
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import path_probs, random_parameters, string_prob, strings_up_to

slow_property = settings(max_examples=15, deadline=None, derandomize=True)
property_settings = settings(max_examples=40, deadline=None, derandomize=True)
thorough = settings(max_examples=200, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
SHORT = {"least_stop": 0.8}  # strings of more than 8 tokens have a probability below 1e-6
LISTED = strings_up_to(2, 8)
ALL = TokenSequences.of(LISTED)
LEAK = PFA.from_parameters([1, 0], [[[0.25, 0.25], [0, 1]]], [0.5, 0])  # state 1 never ends


def random_pfa(states, n_tokens, seed, **options):
    return PFA.from_parameters(*random_parameters(states, n_tokens, seed, **options))


def occurrences(pattern, string):
    m = len(pattern)
    return sum(string[i : i + m] == pattern for i in range(len(string) - m + 1))


class TestTotalMass:
    @given(st.integers(1, 12), st.integers(1, 5), seeds, st.floats(0.1, 1), st.floats(1e-4, 0.5), st.booleans())
    @thorough
    def test_it_is_1_for_every_consistent_automaton(self, states, n_tokens, seed, density, least_stop, deterministic):
        options = {"density": density, "least_stop": least_stop, "deterministic": deterministic}
        pfa = random_pfa(states, n_tokens, seed, **options)
        assert consistent(pfa)
        assert abs(total_mass(pfa) - 1) < 1e-9

    @given(st.integers(2, 30), seeds)
    @property_settings
    def test_one_state_that_stops_is_enough(self, states, seed):
        initial, transitions, stop = random_parameters(states, 2, seed)
        kept = np.where(np.arange(states) == seed % states, stop, 0)
        transitions = transitions * ((1 - kept) / (1 - stop))[None, :, None]
        assert abs(total_mass(PFA.from_parameters(initial, transitions, kept)) - 1) < 1e-9

    @pytest.mark.parametrize("states", [64, 256])
    def test_many_states(self, states):
        assert abs(total_mass(random_pfa(states, 4, 0, least_stop=1e-3)) - 1) < 1e-9

    def test_mass_of_strings_that_never_end_is_missing(self):
        # (0.5 + 0.25 x) = x for the mass x of state 0
        assert math.isclose(total_mass(LEAK), 2 / 3, rel_tol=1e-14)
        assert total_mass(PFA.from_parameters([1], [[[1]]], [0])) == 0
        assert not consistent(LEAK)

    def test_rows_that_do_not_quite_sum_to_1_are_seen(self):
        pfa = PFA.from_parameters([1], [[[0.9]]], [0.1 - 5e-7])
        assert math.isclose(total_mass(pfa), 1 - 5e-6, rel_tol=1e-12)


def test_states_that_are_reached_and_that_end():
    step = torch.zeros(1, 4, 4)
    step[0, 0, 1] = step[0, 1, 2] = step[0, 3, 0] = 1
    pfa = PFA.from_parameters([0, 1, 0, 0], step, [0, 0, 1, 0])
    assert reachable(pfa).tolist() == [False, True, True, False]
    assert terminating(pfa).tolist() == [True] * 4


class TestExpectations:
    @given(st.integers(1, 4), seeds)
    @property_settings
    def test_visits_and_length_are_means_over_strings(self, states, seed):
        initial, transitions, stop = random_parameters(states, 2, seed)
        belief, visits = initial, np.zeros(states)
        for _ in range(2000):
            visits, belief = visits + belief, belief @ transitions.sum(0)
        pfa = PFA.from_parameters(initial, transitions, stop)
        np.testing.assert_allclose(expected_visits(pfa), visits, rtol=1e-10)
        assert math.isclose(expected_length(pfa), visits.sum() - 1, rel_tol=1e-9, abs_tol=1e-12)

    def test_strings_that_never_end_have_infinite_length(self):
        assert expected_visits(LEAK).tolist() == [4 / 3, math.inf]
        assert expected_length(LEAK) == math.inf


class TestParts:
    @given(st.integers(1, 4), seeds, st.sampled_from([0.5, 1.0]))
    @property_settings
    def test_prefix_probabilities(self, states, seed, density):
        initial, transitions, stop = random_parameters(states, 2, seed, density=density)
        listed = strings_up_to(2, 4)
        expected = [string_prob(initial, transitions, np.ones(states), one) for one in listed]
        probs = prefix_log_prob(PFA.from_parameters(initial, transitions, stop), TokenSequences.of(listed)).exp()
        np.testing.assert_allclose(probs, expected, rtol=1e-12, atol=1e-15)

    @given(st.integers(1, 3), seeds)
    @slow_property
    def test_infixes_are_counted_over_all_strings(self, states, seed):
        pfa = random_pfa(states, 2, seed, **SHORT)
        probs = pfa.log_prob(ALL).exp().numpy()
        patterns = [*strings_up_to(2, 3), [0, 1, 0, 1], [0, 0, 1, 0, 0]]
        counts = np.array([[occurrences(pattern, string) for string in LISTED] for pattern in patterns])
        np.testing.assert_allclose(infix_expectation(pfa, TokenSequences.of(patterns)), counts @ probs, atol=2e-5)
        np.testing.assert_allclose(infix_probability(pfa, TokenSequences.of(patterns)), (counts > 0) @ probs, atol=2e-5)

    def test_states_that_no_string_reaches_do_not_matter(self):
        pfa = PFA.from_parameters([1, 0], [[[0.5, 0], [0, 1]]], [0.5, 0])
        assert math.isclose(infix_probability(pfa, TokenSequences.of([[0, 0]])), 0.25)
        assert math.isclose(infix_expectation(pfa, TokenSequences.of([[0, 0]])), 0.5)

    @pytest.mark.parametrize("query", [infix_expectation, infix_probability])
    def test_strings_that_never_end_are_refused(self, query):
        with pytest.raises(ConfigError, match="a string that reaches state 1 never ends"):
            query(LEAK, TokenSequences.of([[0]]))

    @pytest.mark.parametrize("query", [prefix_log_prob, infix_expectation, infix_probability, viterbi])
    def test_tokens_outside_the_alphabet_are_refused(self, query):
        with pytest.raises(DataError, match="sequence 0 has token 2"):
            query(PFA(vocab_size=3), TokenSequences.of([[2]]))


class TestViterbi:
    @given(st.integers(1, 3), seeds, st.sampled_from([0.5, 1.0]))
    @property_settings
    def test_no_path_is_likelier(self, states, seed, density):
        parameters = random_parameters(states, 2, seed, density=density)
        listed = strings_up_to(2, 4)
        strings = TokenSequences.of(listed)
        paths = viterbi(PFA.from_parameters(*parameters), strings)
        for string, root, log_prob in zip(
            listed, strings.first_prefixes().tolist(), paths.log_prob.tolist(), strict=True
        ):
            found = tuple(paths.states[root : root + len(string) + 1].tolist())
            probs = path_probs(*parameters, string)
            best = max(probs.values())
            if best == 0:
                assert log_prob == -math.inf
                assert set(found) == {-1}
            else:
                assert math.isclose(log_prob, math.log(best), rel_tol=1e-12)
                assert math.isclose(probs[found], best, rel_tol=1e-12)

    def test_chunks_do_not_change_the_result(self, monkeypatch):
        pfa = random_pfa(4, 2, 0)
        whole = viterbi(pfa, ALL)
        monkeypatch.setattr("kdzoo.automata.queries.CELLS", 40)
        monkeypatch.setattr("kdzoo.automata.forward.CELLS", 300)
        parts = viterbi(pfa, ALL)
        assert torch.equal(whole.states, parts.states)
        assert torch.equal(whole.log_prob, parts.log_prob)


class TestEntropy:
    @given(st.integers(1, 4), seeds)
    @property_settings
    def test_it_is_the_sum_over_all_strings(self, states, seed):
        pfa = random_pfa(states, 2, seed, deterministic=True, **SHORT)
        log_probs = pfa.log_prob(ALL)
        expected = -float(torch.where(log_probs.isfinite(), log_probs.exp() * log_probs, 0.0).sum())
        assert math.isclose(entropy(pfa), expected, abs_tol=3e-5)
        assert math.isclose(entropy_rate(pfa), expected / (expected_length(pfa) + 1), abs_tol=3e-5)

    def test_the_estimate_is_within_its_error(self):
        pfa = random_pfa(5, 3, 1, deterministic=True)
        estimate = entropy_monte_carlo(pfa, 4000, seed=0)
        assert 0 < estimate.error < 0.05 * entropy(pfa)
        assert abs(estimate.value - entropy(pfa)) < 4.5 * estimate.error
        rate = entropy_rate_monte_carlo(pfa, 4000, seed=0)
        assert abs(rate.value - entropy_rate(pfa)) < 4.5 * rate.error

    def test_the_estimate_covers_nondeterministic_automata(self):
        pfa = random_pfa(3, 2, 4, **SHORT)
        log_probs = pfa.log_prob(ALL)
        estimate = entropy_monte_carlo(pfa, 4000, seed=0)
        assert abs(estimate.value + float(log_probs.exp() @ log_probs)) < 4.5 * estimate.error
        with pytest.raises(ConfigError, match="entropy_monte_carlo"):
            entropy(pfa)

    def test_strings_that_never_end_are_refused(self):
        with pytest.raises(ConfigError, match="never ends"):
            entropy(LEAK)
