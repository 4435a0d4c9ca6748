"""Comparisons of distributions against sums over enumerated strings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.compare import conditional_kl, distinguishing_string, kl, kl_monte_carlo, pautomac_score, perplexity
from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import expected_length
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import random_parameters, string_prob, strings_up_to

property_settings = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
LISTED = strings_up_to(2, 8)
ALL = TokenSequences.of(LISTED)
SHORT = {"least_stop": 0.8}  # strings of more than 8 tokens have a probability below 1e-6
LOOP = PFA.from_parameters([1], [[[0.5]], [[0.25]]], [0.25])


def random_pfa(states, n_tokens, seed, **options):
    return PFA.from_parameters(*random_parameters(states, n_tokens, seed, **options))


def test_perplexity_is_per_symbol():
    strings = TokenSequences.of([[0, 1], [], [1]])
    assert math.isclose(perplexity(PFA(vocab_size=3, states=4).log_prob(strings), strings), 3)
    by_hand = (0.25 * 0.5 * 0.25 * 0.25 * 0.25 * 0.25) ** (-1 / 6)
    assert math.isclose(perplexity(LOOP.log_prob(strings), strings), by_hand)
    assert perplexity(torch.tensor([0.0, -math.inf, 0.0]), strings) == math.inf


@pytest.mark.parametrize(("log_probs", "listed"), [(torch.zeros(2), [[0]]), (torch.zeros(0), [])])
def test_perplexity_needs_one_number_for_each_string(log_probs, listed):
    with pytest.raises(DataError, match="log_probs must be"):
        perplexity(log_probs, TokenSequences.of(listed))


class TestPautomacScore:
    @given(st.integers(1, 40), seeds)
    @property_settings
    def test_it_is_the_formula_whatever_the_scales(self, n, seed):
        p, q = np.random.default_rng(seed).random((2, n)) + 1e-3
        expected = 2 ** -np.sum(p / p.sum() * np.log2(q / q.sum()))
        score = pautomac_score(torch.from_numpy(np.log(p)) - 300, torch.from_numpy(np.log(q)) + 7)
        assert math.isclose(score, expected, rel_tol=1e-10)

    @given(st.integers(1, 40), seeds)
    @property_settings
    def test_the_truth_has_the_lowest_score(self, n, seed):
        p, q = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, n)))
        assert pautomac_score(p, q) >= pautomac_score(p, p) * (1 - 1e-12) >= 1 - 1e-12

    def test_impossible_strings(self):
        zero = -math.inf
        assert pautomac_score(torch.tensor([0.0, zero]), torch.tensor([0.0, zero])) == 1
        assert pautomac_score(torch.tensor([0.0, 0.0]), torch.tensor([0.0, zero])) == math.inf

    @pytest.mark.parametrize("wrong", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf], [0.0]])
    def test_values_that_are_not_log_probabilities_are_refused(self, wrong):
        with pytest.raises(DataError, match="model"):
            pautomac_score(torch.zeros(2), torch.tensor(wrong))


class TestExactKL:
    @given(st.integers(1, 5), st.integers(1, 5), seeds)
    @property_settings
    def test_it_is_the_sum_over_all_strings(self, k_p, k_q, seed):
        p = random_pfa(k_p, 2, seed, deterministic=True, **SHORT)
        q = random_pfa(k_q, 2, seed + 1, deterministic=True, **SHORT)
        log_p, log_q = p.log_prob(ALL), q.log_prob(ALL)
        expected = float((log_p.exp() * (log_p - log_q)).sum()) / (expected_length(p) + 1)
        assert math.isclose(kl(p, q), expected, abs_tol=1e-5)

    @given(st.integers(1, 30), seeds)
    @property_settings
    def test_an_automaton_does_not_diverge_from_itself(self, states, seed):
        p = random_pfa(states, 3, seed, deterministic=True, density=0.8)
        assert kl(p, p) == 0

    def test_tiny_divergences_are_accurate(self):
        p, q = (PFA.from_parameters([1], [[[1 - stop]]], [stop]) for stop in (0.5, 0.5 + 1e-9))
        assert math.isclose(kl(p, q), 2e-18, rel_tol=1e-6)

    def test_the_divergence_is_infinite_if_q_excludes_a_possible_string(self):
        p = PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0]], [[0, 0], [0.5, 0]]], [0.5, 0.5])
        q = PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0]], [[0, 0], [0, 0]]], [0.5, 1])
        assert kl(p, q) == math.inf
        assert math.isfinite(kl(q, p))

    def test_automata_without_an_exact_divergence_are_refused(self):
        nondeterministic = random_pfa(2, 2, 0)
        with pytest.raises(ConfigError, match="p is not: determinise it, or use kl_monte_carlo"):
            kl(nondeterministic, LOOP)
        with pytest.raises(ConfigError, match="and q is not"):
            kl(LOOP, nondeterministic)
        with pytest.raises(ConfigError, match="consistent"):
            kl(PFA.from_parameters([1], [[[1]], [[0]]], [0]), LOOP)
        with pytest.raises(ConfigError, match="same alphabet, got vocab_size 3 and 4"):
            kl(LOOP, PFA(vocab_size=4))


class TestMonteCarloKL:
    @given(st.integers(1, 4), seeds)
    @property_settings
    def test_each_position_has_the_divergence_of_its_distributions(self, states, seed):
        p, q = random_pfa(states, 2, seed, density=0.7), random_pfa(3, 2, seed + 1)
        input, _ = TokenSequences.of(strings_up_to(2, 2)).inputs_and_targets(3)
        log_p, log_q = p(input).numpy(), q(input).numpy()
        with np.errstate(invalid="ignore"):
            expected = np.where(np.isfinite(log_p), np.exp(log_p) * (log_p - log_q), 0).sum(-1)
        np.testing.assert_allclose(conditional_kl(p, q, input), expected, atol=1e-12)

    def test_an_excluded_symbol_is_infinite(self):
        q = PFA.from_parameters([1], [[[0.5]], [[0]]], [0.5])
        assert conditional_kl(LOOP, q, torch.tensor([[2]])).tolist() == [[math.inf]]
        assert kl_monte_carlo(LOOP, q, TokenSequences.of([[0], []])).value == math.inf

    def test_it_estimates_the_exact_divergence_and_its_own_error(self):
        p, q = (random_pfa(4, 2, seed, deterministic=True) for seed in (3, 8))
        exact = kl(p, q)
        found = [kl_monte_carlo(p, q, p.sample(150, seed, 10_000), batch_size=150) for seed in range(60)]
        values, errors = (np.array(column) for column in zip(*found, strict=True))
        assert abs(values.mean() - exact) < 4.5 * values.std() / 60**0.5
        assert errors.max() < 0.2 * exact
        assert 0.7 < errors.mean() / values.std() < 1.4

    def test_batches_do_not_change_the_result(self):
        p, q = random_pfa(3, 2, 0), random_pfa(2, 2, 1)
        strings = p.sample(100, 0, 1000)
        whole, parts = (kl_monte_carlo(p, q, strings, batch_size=size) for size in (100, 7))
        assert np.allclose(whole, parts, rtol=1e-12)

    def test_one_string_is_too_few(self):
        with pytest.raises(DataError, match="at least 2 strings, got 1"):
            kl_monte_carlo(LOOP, LOOP, TokenSequences.of([[0]]))


class TestDistinguishingString:
    @given(st.integers(1, 5), seeds)
    @property_settings
    def test_permuted_states_are_the_same(self, states, seed):
        initial, transitions, stop = random_parameters(states, 2, seed)
        order = np.random.default_rng(seed).permutation(states)
        permuted = PFA.from_parameters(initial[order], transitions[:, order][:, :, order], stop[order])
        assert distinguishing_string(PFA.from_parameters(initial, transitions, stop), permuted) is None

    @given(st.integers(1, 4), seeds, st.floats(1e-6, 0.1))
    @property_settings
    def test_the_string_has_different_probabilities(self, states, seed, change):
        initial, transitions, stop = random_parameters(states, 2, seed)
        other = transitions.copy()
        other[0, -1] *= 1 - change
        changed = stop + (transitions - other).sum((0, 2))
        string = distinguishing_string(
            PFA.from_parameters(initial, transitions, stop), PFA.from_parameters(initial, other, changed)
        )
        assert string is not None
        one, two = string_prob(initial, transitions, stop, string), string_prob(initial, other, changed, string)
        assert not math.isclose(one, two, rel_tol=1e-9)

    def test_a_difference_far_away_is_found(self):
        def chain(last):
            step = torch.diag(torch.full((9,), 0.5), 1)[None].double()
            step[0, 9, 9] = last
            return PFA.from_parameters(torch.eye(10)[0], step, 1 - step.sum((0, 2)))

        assert distinguishing_string(chain(0.5), chain(0.4)) == [0] * 9

    def test_other_alphabets_are_refused(self):
        with pytest.raises(ConfigError, match="same alphabet"):
            distinguishing_string(LOOP, PFA(vocab_size=2))
