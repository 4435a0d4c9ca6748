"""Smaller automata have the distribution of the larger ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import consistent, reachable, terminating, total_mass
from kdzoo.automata.simplify import determinise, minimise, trim
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import random_parameters, strings_up_to

property_settings = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
STRINGS = TokenSequences.of(strings_up_to(2, 6))


def random_pfa(states, n_tokens, seed, **options):
    return PFA.from_parameters(*random_parameters(states, n_tokens, seed, **options))


def with_copies(pfa, copies, seed):
    """Replace each state by copies that behave alike; what enters a state is shared at random among its copies."""
    rng = np.random.default_rng(seed)
    S, K = pfa.n_tokens, pfa.states
    share = rng.dirichlet(np.ones(copies), size=(S, K, copies, K))
    transitions = np.einsum("akl,akcld->akcld", pfa.transitions.numpy(), share).reshape(S, K * copies, K * copies)
    initial = (pfa.initial.numpy()[:, None] * rng.dirichlet(np.ones(copies), size=K)).flatten()
    order = rng.permutation(K * copies)
    stop = np.repeat(pfa.stop.numpy(), copies)
    return PFA.from_parameters(initial[order], transitions[:, order][:, :, order], stop[order])


def assert_same_distribution(one, other, shift=0.0):
    torch.testing.assert_close(one.log_prob(STRINGS), other.log_prob(STRINGS) + shift, rtol=1e-9, atol=1e-9)


class TestTrim:
    @given(st.integers(1, 6), seeds)
    @property_settings
    def test_remaining_states_are_reachable_and_the_distribution_stays(self, states, seed):
        pfa = random_pfa(states, 2, seed, density=0.2)
        trimmed = trim(pfa)
        assert reachable(trimmed).all()
        assert trimmed.states == int(reachable(pfa).sum())
        assert_same_distribution(trimmed, pfa)

    @given(st.integers(2, 6), seeds, st.integers(0, 5))
    @property_settings
    def test_strings_that_never_end_are_conditioned_away(self, states, seed, lost):
        initial, transitions, stop = random_parameters(states, 2, seed, density=0.4)
        lost %= states
        stop[lost], transitions[:, lost], transitions[0, lost, lost] = 0, 0, 1
        pfa = PFA.from_parameters(initial, transitions, stop)
        trimmed = trim(pfa)
        assert trimmed.states == int((reachable(pfa) & terminating(pfa)).sum()) < states
        assert consistent(trimmed)
        assert math.isclose(total_mass(trimmed), 1, abs_tol=1e-9)
        assert_same_distribution(trimmed, pfa, shift=-math.log(total_mass(pfa)))

    def test_an_automaton_without_strings_is_refused(self):
        with pytest.raises(ConfigError, match="no string that ends"):
            trim(PFA.from_parameters([1], [[[1]]], [0]))


class TestMinimise:
    @given(st.integers(1, 4), st.integers(1, 3), seeds, st.booleans())
    @property_settings
    def test_copies_of_states_are_merged_again(self, states, copies, seed, deterministic):
        pfa = random_pfa(states, 2, seed, density=0.7, deterministic=deterministic)
        minimal = minimise(with_copies(pfa, copies, seed))
        assert minimal.states == minimise(pfa).states <= states
        assert_same_distribution(minimal, pfa)

    @given(seeds)
    @property_settings
    def test_states_with_different_futures_are_kept(self, seed):
        pfa = random_pfa(4, 2, seed, deterministic=True)
        minimal = minimise(pfa)
        assert minimal.states == int(reachable(pfa).sum())
        assert minimal.deterministic

    def test_states_that_differ_only_later_are_kept(self):
        # 0 -a-> 1 -a-> 3, 0 -b-> 2 -a-> 4: states 1 and 2 look alike until 3 and 4 differ
        step = torch.zeros(2, 5, 5)
        step[0, 0, 1] = step[1, 0, 2] = 0.5
        step[0, 1, 3] = step[0, 2, 4] = 1
        step[0, 3, 3] = 0.5
        pfa = PFA.from_parameters([1, 0, 0, 0, 0], step, [0, 0, 0, 0.5, 1])
        assert minimise(pfa).states == 5
        step[0, 3, 3] = 0
        same = minimise(PFA.from_parameters([1, 0, 0, 0, 0], step, [0, 0, 0, 1, 1]))
        assert same.states == 3
        assert same.log_prob(TokenSequences.of([[0, 0], [1, 0], [0, 1]])).exp().tolist() == [0.5, 0.5, 0]

    def test_the_tolerance_decides(self):
        pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0.51, 0]]], [0.5, 0.49])
        assert minimise(pfa).states == 2
        assert minimise(pfa, tolerance=0.02).states == 1


class TestDeterminise:
    @given(st.integers(1, 4), st.integers(1, 3), seeds)
    @property_settings
    def test_copies_of_a_deterministic_automaton(self, states, copies, seed):
        pfa = random_pfa(states, 2, seed, deterministic=True)
        found = minimise(determinise(minimise(with_copies(pfa, copies, seed))))
        assert found.deterministic
        assert found.states == minimise(pfa).states
        assert_same_distribution(found, pfa)

    def test_beliefs_become_states(self):
        # after the first token nobody knows which of two states it is, after the second everybody does
        step = torch.zeros(2, 4, 4)
        step[0, 0, 1], step[0, 0, 2] = 0.5, 0.5
        step[0, 1, 3] = step[1, 2, 3] = 1
        pfa = PFA.from_parameters([1, 0, 0, 0], step, [0, 0, 0, 1])
        found = determinise(pfa)
        assert found.deterministic
        assert found.states == 3
        assert_same_distribution(found, pfa)

    def test_endless_beliefs_are_refused_or_merged(self):
        pfa = random_pfa(3, 2, 0)
        with pytest.raises(ConfigError, match="more than max_states=50 beliefs at tolerance=1e-09"):
            determinise(pfa, max_states=50)
        coarse = determinise(pfa, tolerance=0.02, max_states=500)
        assert coarse.deterministic
        close = coarse.log_prob(STRINGS) - pfa.log_prob(STRINGS)
        assert 0 < close.abs().max() < 0.15

    @given(st.integers(2, 4), seeds)
    @property_settings
    def test_it_is_a_consistent_automaton_at_any_tolerance(self, states, seed):
        pfa = random_pfa(states, 2, seed)
        found = determinise(pfa, tolerance=0.2, max_states=2000)
        assert consistent(found)
        assert math.isclose(total_mass(found), 1, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pfa: minimise(pfa, tolerance=0), "tolerance must be finite and > 0, got 0"),
        (lambda pfa: determinise(pfa, tolerance=-1.0), "tolerance must be finite and > 0"),
        (lambda pfa: determinise(pfa, max_states=0), "max_states must be an integer >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(PFA(3))
