"""The baselines against a known automaton, and what is held out for them."""

import pytest
import torch

from kdzoo.automata.baselines import (
    BASELINES,
    HOLD_OUT_EVERY,
    LanguageModelModule,
    held_out_split,
    kmeans_counts,
    mixed_with_uniform,
    random_baum_welch,
)
from kdzoo.automata.ngram import ngram
from kdzoo.automata.pfa import PFA
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.text.language_model import LanguageModel, sequence_log_probs
from kdzoo.text.token_sequences import TokenSequences

TRUTH = PFA.from_parameters([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])


@pytest.fixture(scope="module")
def traced():
    """Strings of the automaton, whose state after each prefix is the hidden state."""
    strings = TRUTH.sample(300, seed=0, max_length=60)
    states = [
        int(TRUTH(torch.tensor([[2, *tokens[:length]]]))[0, -1].exp()[2] > 0.25)
        for tokens in strings.to_lists()
        for length in range(len(tokens) + 1)
    ]
    return TracedSequences(strings, 3, torch.tensor(states).double()[:, None])


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_a_language_model_that_comes_close_to_the_truth(name, traced):
    if name == "alergia":
        pytest.importorskip("aalpy")
    model = BASELINES[name](traced, 2, 0)
    assert isinstance(model, LanguageModel)
    assert isinstance(model, torch.nn.Module)
    fresh = TRUTH.sample(500, seed=9, max_length=60)
    gap = (TRUTH.log_prob(fresh) - sequence_log_probs(model, fresh)).sum() / fresh.n_prefixes
    # The last two tokens do not determine the state, so a 3-gram cannot be as close as the others.
    assert float(gap) < (0.1 if name == "ngram3" else 0.05)
    assert model.n_parameters > 0


def test_kmeans_on_the_true_states_counts_the_truth(traced):
    pfa = kmeans_counts(traced, 2, 0, restarts=2)
    torch.testing.assert_close(pfa.stop.sort().values, TRUTH.stop, atol=0.04, rtol=0)
    assert pfa.states == 2


def test_the_seed_decides_on_random_starts(traced):
    first, again, other = (random_baum_welch(traced, 2, seed, restarts=1, steps=2) for seed in (0, 0, 5))
    assert torch.equal(first.transitions, again.transitions)
    assert not torch.equal(first.transitions, other.transitions)


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_share_of_the_uniform_distribution_makes_every_string_possible(share):
    pfa = PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0]], [[0, 0], [0, 0]]], [0.5, 1])
    mixed = mixed_with_uniform(pfa, share)
    torch.testing.assert_close(mixed.emissions, (1 - share) * pfa.emissions + share / 3)
    assert pfa.log_prob(TokenSequences.of([[1, 0]])).isneginf().all()
    assert mixed.log_prob(TokenSequences.of([[1, 0], [0, 0, 1]])).isfinite().all()


@pytest.mark.parametrize("n", [1, HOLD_OUT_EVERY - 1, HOLD_OUT_EVERY, 35])
def test_every_tenth_string_is_held_out(n):
    train, held_out = held_out_split(TokenSequences.of([[0]] * n))
    if n < HOLD_OUT_EVERY:
        assert train.tolist() == held_out.tolist() == list(range(n))
    else:
        assert held_out.tolist() == [i for i in range(n) if i % 10 == 9]
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(n))


def test_the_module_predicts_what_its_table_predicts():
    model = ngram(TRUTH.sample(20, seed=1, max_length=20), 2, 3)
    module, input = LanguageModelModule(model), torch.tensor([[2, 0, 1], [2, 1, 1]])
    state = model.initial_state(2)
    for place in range(3):
        state = model.step(state, input[:, place]) if place else state
        torch.testing.assert_close(module(input)[:, place], model.next_log_probs(state))
    assert (module.vocab_size, module.n_parameters) == (3, model.n_parameters)
