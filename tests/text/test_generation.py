"""Strings as functions of uniform noise, and the rewards of their prefixes."""

import pytest
import torch

from kdzoo.automata.targets import tomita
from kdzoo.models import TransformerLM
from kdzoo.text.generation import draw_strings, has_ended, prefix_rewards
from tests.text.strings_by_enumeration import END, LENGTH, all_strings, log_probs_of_symbols, small_model

DRAWS = 20_000


def reward_of(strings):
    """Return a reward that depends on every position."""
    return torch.sin(strings.double() @ torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))


def test_strings_have_the_probabilities_of_the_model():
    model, strings = small_model(), all_strings()
    expected = log_probs_of_symbols(model, strings).sum(1).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-12)
    torch.manual_seed(0)
    drawn = draw_strings(model, torch.rand(DRAWS, LENGTH))
    counts = (drawn[:, None] == strings).all(2).double().mean(0)
    assert counts.sum() == 1  # nothing else is drawn
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((counts - expected).abs() <= 4 * deviation).all()


def test_a_string_is_a_function_of_its_own_noise():
    model, uniform = small_model(), torch.rand(7, LENGTH)
    whole = draw_strings(model, uniform)
    assert torch.equal(whole, torch.cat([draw_strings(model, part) for part in uniform.split(3)]))
    assert model.training
    assert not whole.requires_grad


def test_what_follows_the_end_is_the_end():
    model = tomita(1)  # strings of ones, the end is the symbol 2
    strings = draw_strings(model, torch.linspace(0, 0.999, 40)[:, None].expand(-1, 5))
    assert set(strings.unique().tolist()) == {1, 2}
    ended = has_ended(model, strings)
    assert (strings[ended] == 2).all()
    assert not ended[:, 0].any()


@pytest.mark.parametrize("ends_early", [False, True])
def test_the_reward_of_a_prefix_is_its_expectation(ends_early):
    model, strings = small_model(), all_strings()
    probabilities, rewards = log_probs_of_symbols(model, strings).sum(1).exp(), reward_of(strings)
    string = torch.tensor([[1, END, END]] if ends_early else [[1, 2, 0]])
    torch.manual_seed(1)
    estimates = prefix_rewards(model, string.expand(4000, -1), torch.rand(4000, 2, LENGTH), reward_of)
    for t in range(LENGTH):
        same = (strings[:, : t + 1] == string[:, : t + 1]).all(1)
        exact = (probabilities * rewards)[same].sum() / probabilities[same].sum()
        error = estimates[:, t].std() / len(estimates) ** 0.5
        assert abs(estimates[:, t].mean() - exact) <= 3 * error + 1e-12
    assert torch.equal(estimates[:, -1], reward_of(string).expand(len(estimates)))


def test_more_rollouts_have_less_variance():
    model, string = small_model(), torch.tensor([[1, 2, 0]])
    torch.manual_seed(0)
    strings = string.expand(500, -1)
    spread = [prefix_rewards(model, strings, torch.rand(500, k, LENGTH), reward_of)[:, 0].var().item() for k in (1, 16)]
    assert spread[1] == pytest.approx(spread[0] / 16, rel=0.3)


def test_a_transformer_is_rolled_out_as_well():
    torch.manual_seed(0)
    model = TransformerLM(vocab_size=4, width=8, layers=1, heads=2, max_length=4)
    strings = draw_strings(model, torch.rand(5, LENGTH))
    assert prefix_rewards(model, strings, torch.rand(5, 2, LENGTH), reward_of).shape == (5, LENGTH)
