"""The average of a network's weights: its recursion, its use, and that it is state and not a parameter."""

import copy

import pytest
import torch
from torch import nn

from kdzoo.core.weight_average import WeightAverage, call_with_weights, set_weights
from kdzoo.errors import ConfigError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def test_the_average_follows_its_recursion_and_its_rising_decay():
    model = network()
    average = WeightAverage(model, decay=0.3)
    expected = flat(model)
    for t in range(1, 6):
        set_weights(model, flat(network(t)))
        average.after_step()
        decay = min(0.3, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * flat(model)
        torch.testing.assert_close(average.weights, expected)
    assert int(average.steps) == 5


def test_the_network_is_called_with_the_averaged_weights():
    model, other, inputs = network(), network(1), torch.randn(5, 3)
    average = WeightAverage(model, decay=0.9)
    average.weights.copy_(flat(other))
    torch.testing.assert_close(average(inputs), other(inputs))
    torch.testing.assert_close(call_with_weights(model, flat(other), inputs), other(inputs))


def test_it_is_a_part_of_the_state_but_not_a_parameter():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()
            self.average = WeightAverage(self.network, 0.9)

    model = Model()
    assert sum(parameter.numel() for parameter in model.parameters()) == len(model.average.weights)
    assert {"average.weights", "average.steps"} < model.state_dict().keys()
    twin = copy.deepcopy(model)
    set_weights(twin.network, torch.zeros_like(twin.average.weights))
    twin.average.restart()
    assert twin.average.weights.abs().sum() == 0  # of its own network
    assert model.average.weights.abs().sum() > 0


def test_restarting_takes_the_present_weights():
    model = network()
    average = WeightAverage(model, decay=0.9)
    average.after_step()
    set_weights(model, flat(network(1)))
    average.restart()
    assert torch.equal(average.weights, flat(model))
    assert int(average.steps) == 0


@pytest.mark.parametrize("is_training", [True, False])
def test_calls_change_no_running_statistics_and_use_averaged_ones(is_training):
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    model.train()(torch.randn(8, 2) + 3)
    average.restart()
    assert torch.equal(average.statistics, torch.cat([model.running_mean, model.running_var]))
    expected = copy.deepcopy(model)
    model(torch.randn(8, 2) - 5)  # the present statistics are others
    before = {name: value.clone() for name, value in model.named_buffers()}
    inputs = torch.randn(8, 2)
    model.train(is_training)
    torch.testing.assert_close(average(inputs), expected.train(is_training)(inputs))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("decay", [-0.1, 1.0, True, float("nan")])
def test_a_bad_decay_raises(decay):
    with pytest.raises(ConfigError, match=r"^decay must be in \[0, 1\)"):
        WeightAverage(network(), decay)
