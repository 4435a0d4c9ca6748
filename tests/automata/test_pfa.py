"""The automaton as a distribution over strings, as a language model and as a module."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.pfa import PFA
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.language_model import LanguageModel, sample, sequence_log_probs, stepwise_trace
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import path_probs, random_parameters, string_prob, strings_up_to

property_settings = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def random_pfa(states=4, n_tokens=3, seed=0, **options):
    return PFA.from_parameters(*random_parameters(states, n_tokens, seed, **options))


class TestParameters:
    def test_a_new_automaton_is_uniform(self):
        pfa = PFA(vocab_size=4, states=3)
        assert (pfa.states, pfa.n_tokens, pfa.vocab_size) == (3, 3, 4)
        log_probs = pfa.log_prob(TokenSequences.of([[], [2], [0, 1]]))
        torch.testing.assert_close(log_probs, -torch.tensor([1.0, 2.0, 3.0]).double() * math.log(4))

    def test_parameters_are_copied_without_rounding(self):
        initial, transitions, stop = random_parameters(3, 2, 0)
        stop = stop + 5e-7
        pfa = PFA.from_parameters(initial, transitions, stop)
        assert (pfa.stop.numpy() == stop).all()
        assert (pfa.transitions.numpy() == transitions).all()
        stop[:] = 7
        assert pfa.stop.max() < 2

    def test_lists_are_read_in_double_precision(self):
        assert PFA.from_parameters([1], [[[0.9]]], [0.1]).stop.tolist() == [0.1]

    def test_the_number_of_states_may_change_in_place(self):
        pfa = PFA(vocab_size=3, states=2)
        pfa.set_parameters(*random_parameters(5, 2, 0))
        assert pfa.learned_sizes == {"states": 5}

    def test_free_parameters_are_nonzero_ones_less_the_sums(self):
        pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0]], [[0.25, 0], [0, 0.5]]], [0.25, 0.5])
        assert pfa.n_parameters == (1 - 1) + (3 - 1) + (2 - 1)
        assert PFA(vocab_size=3, states=2).n_parameters == 1 + 2 * (2 * 2 + 1 - 1)

    @pytest.mark.parametrize(
        ("initial", "transitions", "stop", "message"),
        [
            ([1], [[[0.5]]], [0.4], r"transitions and stop of state 0 must sum to 1, got 0\.9"),
            ([0.5, 0.4], [[[0, 0.5], [0, 0.5]]], [0.5, 0.5], r"initial must sum to 1, got 0\.9"),
            ([1], [[[1.5]]], [-0.5], r"transitions\[0, 0, 0\] must be a probability, got 1\.5"),
            ([1], [[[math.nan]]], [0.5], r"transitions\[0, 0, 0\] must be a probability, got nan"),
            ([1], [[[0.5]]], [0.5, 0.5], r"stop must have shape \[1\]"),
            ([1, 0], [[[0.5]]], [0.5, 0.5], r"transitions must have shape \[1, 2, 2\]"),
            ([[1]], [[[0.5]]], [0.5], "initial must have 1 dimensions"),
            ([], [[[0.5]]], [0.5], r"initial must have 1 dimensions of at least 1, got shape \[0\]"),
            (["a"], [[[0.5]]], [0.5], "initial must be an array of numbers"),
        ],
    )
    def test_parameters_that_are_not_distributions_are_refused(self, initial, transitions, stop, message):
        with pytest.raises(ConfigError, match=message):
            PFA.from_parameters(initial, transitions, stop)

    def test_the_number_of_tokens_may_not_change(self):
        with pytest.raises(ConfigError, match=r"transitions must have shape \[2, 3, 3\]"):
            PFA(vocab_size=3).set_parameters(*random_parameters(3, 4, 0))

    @pytest.mark.parametrize("sizes", [{"vocab_size": 1}, {"vocab_size": 3, "states": 0}, {"vocab_size": 2.0}])
    def test_sizes_out_of_range_are_refused(self, sizes):
        with pytest.raises(ConfigError, match="must be an integer"):
            PFA(**sizes)

    @pytest.mark.parametrize(("seed", "deterministic"), [(0, True), (1, True), (0, False)])
    def test_determinism_is_recognised(self, seed, deterministic):
        assert random_pfa(seed=seed, deterministic=deterministic).deterministic == deterministic


class TestStateDict:
    def test_it_restores_the_number_of_states(self):
        saved = random_pfa(5)
        loaded = PFA(vocab_size=4)
        loaded.load_state_dict(saved.state_dict())
        assert loaded.states == 5
        assert all(torch.equal(a, b) for a, b in zip(loaded.buffers(), saved.buffers(), strict=True))

    def test_it_works_within_a_larger_module(self):
        modules = torch.nn.ModuleList([torch.nn.Linear(2, 2), PFA(vocab_size=4)])
        saved = torch.nn.ModuleList([torch.nn.Linear(2, 2), random_pfa(5)])
        modules.load_state_dict(saved.state_dict())
        assert modules[1].states == 5

    def test_a_fixed_number_of_states_is_kept(self):
        with pytest.raises(RuntimeError, match="size mismatch"):
            PFA(vocab_size=4, states=3).load_state_dict(random_pfa(5).state_dict())

    def test_invalid_parameters_are_refused(self):
        state = random_pfa(2).state_dict()
        state["stop"] = state["stop"] / 2
        with pytest.raises(RuntimeError, match="transitions and stop of state 0 must sum to 1"):
            PFA(vocab_size=4).load_state_dict(state)

    def test_other_tokens_are_refused(self):
        with pytest.raises(RuntimeError, match="transitions must have shape"):
            PFA(vocab_size=3).load_state_dict(random_pfa(2).state_dict())

    def test_missing_parameters_are_named(self):
        state = random_pfa(2).state_dict()
        del state["stop"]
        with pytest.raises(RuntimeError, match=r'Missing key.*"stop"'):
            PFA(vocab_size=4, states=2).load_state_dict(state)


class TestLogProb:
    @given(st.integers(1, 3), st.integers(1, 3), seeds, st.sampled_from([0.5, 1.0]))
    @property_settings
    def test_it_sums_over_all_state_paths(self, states, n_tokens, seed, density):
        parameters = random_parameters(states, n_tokens, seed, density=density)
        listed = strings_up_to(n_tokens, 3)
        expected = [sum(path_probs(*parameters, one).values()) for one in listed]
        probs = PFA.from_parameters(*parameters).log_prob(TokenSequences.of(listed)).exp()
        np.testing.assert_allclose(probs, expected, rtol=1e-12, atol=1e-15)

    def test_impossible_strings_get_minus_infinity_and_no_nan(self):
        pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0]], [[0, 0], [0.5, 0]]], [0.5, 0.5])
        log_probs = pfa.log_prob(TokenSequences.of([[0], [0, 0], [1, 0, 1], [0, 1]]))
        assert log_probs.tolist() == [math.log(0.25), -math.inf, -math.inf, math.log(0.125)]

    def test_long_strings_stay_finite(self):
        pfa = PFA(vocab_size=3, states=2)
        strings = TokenSequences.of([torch.zeros(10_000, dtype=torch.int64), [1]])
        expected = [-10_001 * math.log(3), -2 * math.log(3)]
        np.testing.assert_allclose(pfa.log_prob(strings), expected, rtol=1e-12)

    def test_no_strings_have_no_log_probabilities(self):
        assert PFA(3).log_prob(TokenSequences.of([])).shape == (0,)

    def test_tokens_outside_the_alphabet_are_refused(self):
        with pytest.raises(DataError, match="sequence 1 has token 2 at position 0"):
            PFA(vocab_size=3).log_prob(TokenSequences.of([[1], [2]]))


class TestLanguageModel:
    def test_it_satisfies_the_protocol(self):
        assert isinstance(PFA(3), LanguageModel)

    @given(st.integers(1, 4), seeds, st.sampled_from([0.4, 1.0]))
    @property_settings
    def test_next_token_probabilities_are_ratios_of_prefix_probabilities(self, states, seed, density):
        initial, transitions, stop = random_parameters(states, 2, seed, density=density)
        pfa = PFA.from_parameters(initial, transitions, stop)
        prefixes = strings_up_to(2, 3)
        input, _ = TokenSequences.of(prefixes).inputs_and_targets(3)
        log_probs = pfa(input)
        assert log_probs.dtype == torch.float64
        assert not log_probs.isnan().any()
        np.testing.assert_allclose(log_probs.exp().sum(-1), 1, rtol=1e-12)
        for row, prefix in zip(log_probs.exp().numpy(), prefixes, strict=True):
            mass = string_prob(initial, transitions, np.ones(states), prefix)
            longer = [string_prob(initial, transitions, np.ones(states), [*prefix, a]) for a in range(2)]
            ends = string_prob(initial, transitions, stop, prefix)
            expected = np.array([*longer, ends]) / mass if mass > 0 else np.full(3, 1 / 3)
            np.testing.assert_allclose(row[len(prefix)], expected, atol=1e-12)

    @given(seeds)
    @property_settings
    def test_the_chain_rule_gives_the_log_probability(self, seed):
        pfa = random_pfa(seed=seed, density=0.5)
        strings = TokenSequences.of(strings_up_to(3, 3))
        input, target = strings.inputs_and_targets(4)
        chosen = pfa(input).gather(-1, target.clamp(min=0)[..., None]).squeeze(-1)
        torch.testing.assert_close(chosen.masked_fill(target == IGNORE, 0).sum(1), pfa.log_prob(strings))
        torch.testing.assert_close(sequence_log_probs(pfa, strings), pfa.log_prob(strings))

    def test_begin_marker_and_padding_have_no_effect(self):
        pfa = random_pfa()
        short, long = pfa(torch.tensor([[3, 1]])), pfa(torch.tensor([[0, 1, 3, 3]]))
        assert torch.equal(short, long[:, :2])
        assert torch.equal(long[:, 2:].exp(), torch.full((1, 2, 4), 0.25).double())

    def test_trace_equals_stepwise_trace(self):
        pfa = random_pfa(density=0.5)
        input, _ = TokenSequences.of([[0, 1, 2], [2, 2, 0]]).inputs_and_targets(4)
        for own, stepwise in zip(pfa.trace(input), stepwise_trace(pfa, input), strict=True):
            assert torch.equal(own, stepwise)

    @pytest.mark.parametrize("token", [4, -1])
    def test_tokens_outside_the_alphabet_are_refused(self, token):
        with pytest.raises(DataError, match=r"allowed: 0\.\.3"):
            random_pfa()(torch.tensor([[3, token]]))


class TestSample:
    def test_frequencies_are_probabilities(self):
        pfa = random_pfa(3, 2, seed=5, least_stop=0.3)
        n = 20_000
        drawn = pfa.sample(n, seed=1, max_length=1000)
        listed = strings_up_to(2, 2)
        counts = np.array([drawn.to_lists().count(one) for one in listed])
        probs = pfa.log_prob(TokenSequences.of(listed)).exp().numpy()
        assert (np.abs(counts - n * probs) < 4.5 * np.sqrt(n * probs * (1 - probs))).all()
        assert counts.min() > 100

    def test_it_draws_what_the_general_sampler_draws(self):
        pfa = random_pfa(seed=2)
        own = pfa.sample(4000, seed=0, max_length=500).lengths.double()
        general = sample(pfa, 4000, max_length=500, seed=0).lengths.double()
        error = (own.var() / 4000 + general.var() / 4000).sqrt()
        assert abs(own.mean() - general.mean()) < 4.5 * error

    def test_the_result_depends_on_the_seed(self):
        pfa = random_pfa()
        first, again, other = (pfa.sample(50, seed, 100).to_lists() for seed in (3, 3, 4))
        assert first == again != other

    def test_strings_are_cut_and_impossible_ones_never_drawn(self):
        pfa = PFA.from_parameters([1, 0], [[[0, 1], [0, 0]], [[0, 0], [1, 0]]], [0, 0])
        assert pfa.sample(2, seed=0, max_length=5).to_lists() == [[0, 1, 0, 1, 0]] * 2
        assert pfa.sample(0, seed=0, max_length=5).to_lists() == []
        assert pfa.sample(2, seed=0, max_length=0).to_lists() == [[], []]
