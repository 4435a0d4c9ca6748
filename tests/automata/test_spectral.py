"""Spectral learning: the automaton that made the strings is found again."""

import pytest
import torch

from kdzoo.automata.pfa import PFA
from kdzoo.automata.spectral import WeightedAutomaton, hankel, spectral
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.language_model import LanguageModel, sequence_log_probs
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import random_parameters, strings_up_to

PDFA = ([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])


@pytest.mark.parametrize("kind", ["factor", "prefix"])
def test_the_rank_of_a_deterministic_automaton_gives_it_back(kind):
    truth = PFA.from_parameters(*PDFA)
    strings = truth.sample(20000, seed=0, max_length=200)
    model = hankel(strings, 3, kind=kind, basis=60, max_length=3).automaton(2, floor=0.0)
    tests = TokenSequences.of([[], [0], [0, 0], [0, 1, 1], [1, 0, 0, 0]])
    torch.testing.assert_close(model.weight(tests), truth.log_prob(tests).exp(), atol=4e-3, rtol=0.05)
    torch.testing.assert_close(model.log_prob(tests), truth.log_prob(tests), atol=0.05, rtol=0.02)


def test_weighted_automata_are_proper_distributions_and_chosen_on_held_out_strings():
    truth = PFA.from_parameters(*PDFA)
    train, held_out = truth.sample(500, seed=1, max_length=100), truth.sample(200, seed=2, max_length=100)
    model = spectral(train, 3, held_out=held_out, ranks=(1, 2, 8), basis=30, max_length=3)
    state = model.step(model.initial_state(3), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(model.next_log_probs(state).exp().sum(1), torch.ones(3, dtype=torch.float64))
    gap = (truth.log_prob(held_out) - model.log_prob(held_out)).sum() / held_out.n_prefixes
    assert float(gap) < 0.01
    assert model.rank >= 2


def test_a_probabilistic_automaton_is_a_weighted_one_with_its_probabilities():
    parameters = [torch.from_numpy(part) for part in random_parameters(3, 2, 0)]
    pfa = PFA.from_parameters(*parameters)
    model = WeightedAutomaton(pfa.initial, pfa.transitions, pfa.stop, floor=0.0)
    strings = TokenSequences.of(strings_up_to(2, 3))
    torch.testing.assert_close(model.weight(strings), pfa.log_prob(strings).exp())
    torch.testing.assert_close(model.log_prob(strings), pfa.log_prob(strings))
    torch.testing.assert_close(sequence_log_probs(model, strings), model.log_prob(strings))
    assert isinstance(model, LanguageModel)
    assert (model.rank, model.n_parameters) == (3, 3 + 2 * 9 + 3)


def test_negative_weights_get_the_floor_and_nothing_positive_is_uniform():
    model = WeightedAutomaton(
        torch.ones(1).double(), torch.tensor([[[-0.5]]]).double(), torch.tensor([0.75]).double(), floor=0.1
    )
    torch.testing.assert_close(
        model.next_log_probs(model.initial_state(1)).exp()[0], torch.tensor([0.05, 0.95]).double()
    )
    negative = WeightedAutomaton(model.initial, model.transitions, -model.final, floor=0.0)
    torch.testing.assert_close(
        negative.next_log_probs(torch.zeros(1, 1).double()).exp()[0], torch.tensor([0.5, 0.5]).double()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "suffix"}, "kind must be one of factor, prefix, got 'suffix'"),
        ({"basis": 0}, "basis must be an integer >= 1, got 0"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        hankel(TokenSequences.of([[0]]), 3, **options)
    with pytest.raises(DataError, match="sequence 0 has token 2"):
        hankel(TokenSequences.of([[2]]), 3)
