"""A network in training mode, and the moving average of its weights in eval mode."""

import copy

import torch
from torch import nn

from kdzoo.models.averaged import AveragedNetwork


def test_training_uses_the_network_and_evaluation_its_average():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    averaged = AveragedNetwork(network, 0.99)
    network.weight.data.fill_(3.0)
    inputs = torch.ones(1, 1)
    assert averaged.train()(inputs).item() == 3
    assert averaged.eval()(inputs).item() == 1
    averaged.average.after_step()
    assert 1 < averaged(inputs).item() < 3


def test_a_copy_follows_its_own_network():
    original = AveragedNetwork(nn.Linear(1, 1, bias=False), 0.0)
    other = copy.deepcopy(original).eval()
    other.network.weight.data.fill_(7.0)
    other.average.after_step()
    assert other(torch.ones(1, 1)).item() == 7
    assert original.eval()(torch.ones(1, 1)).item() != 7


def test_the_running_statistics_of_a_norm_are_averaged_with_the_weights():
    averaged = AveragedNetwork(nn.BatchNorm1d(2, momentum=1.0), 0.5)
    mean = torch.zeros(2)
    for step in range(1, 6):
        inputs = torch.randn(16, 2) * 3 + step
        averaged.train()(inputs)
        averaged.average.after_step()
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * inputs.mean(0)  # a momentum of 1 keeps the last batch alone
    norm = averaged.network
    at_mean = averaged.eval()(mean[None])
    torch.testing.assert_close(at_mean, torch.zeros(1, 2), atol=1e-5, rtol=0)
    assert (norm.running_mean - mean).abs().max() > 0.1
