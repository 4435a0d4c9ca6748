"""Distributions of initial weights, against torch's own layers and initialisations."""

import math

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation.initial_weights import InitialDistribution, initial_distribution
from kdzoo.errors import ConfigError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3))


LAYERS = [nn.Linear(5, 7, bias=False), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Conv1d(2, 3, 5, bias=False)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("init", ["xavier", "kaiming"])
def test_uniform_weights_are_those_that_torch_draws_from_the_same_random_numbers(init, layer):
    fill = {"xavier": nn.init.xavier_uniform_, "kaiming": nn.init.kaiming_uniform_}[init]
    expected = fill(torch.empty_like(layer.weight), generator=seeded())
    weights = initial_distribution(layer, init).sample(1, seeded())
    torch.testing.assert_close(weights[0], expected.detach().flatten())


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(5, 7), lambda: nn.Conv2d(4, 6, 3, groups=2)], ids=["linear", "conv"]
)
def test_default_weights_and_biases_are_those_of_torchs_layers(make):
    torch.manual_seed(3)
    layer = make()
    distribution = initial_distribution(make(), "default")
    torch.manual_seed(3)
    expected = nn.utils.parameters_to_vector(layer.parameters()).detach()
    torch.testing.assert_close(distribution.sample(1)[0], expected)


def test_normal_weights_have_their_mean_and_deviation_in_every_layer():
    weights = initial_distribution(network(), "normal", mean=0.3, std=0.05).sample(4000, seeded())
    assert (weights.mean(0) - 0.3).abs().max() < 5 * 0.05 / math.sqrt(4000)
    assert (weights.std(0) / 0.05 - 1).abs().max() < 5 / math.sqrt(2 * 4000)


@pytest.mark.parametrize("init", ["xavier", "kaiming", "default"])
def test_normalisation_layers_start_as_the_identity(init):
    distribution = initial_distribution(network(), init)
    sizes = [parameter.numel() for parameter in network().parameters()]  # conv, norm and linear: weight, bias each
    first, second = (weights.split(sizes) for weights in distribution.sample(2, seeded()))
    assert (first[2] == 1).all()
    assert (first[3] == 0).all()
    assert ((first[5] == 0).all()) == (init != "default")
    assert (first[4] != second[4]).any()


@pytest.mark.parametrize("is_normal", [True, False])
def test_a_sample_is_the_unit_scaled_and_shifted(is_normal):
    offset, scale = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 0.0, 3.0])
    unit = torch.empty(4, 3)
    expected = unit.normal_(generator=seeded(5)) if is_normal else unit.uniform_(-1, 1, generator=seeded(5))
    weights = InitialDistribution(offset, scale, is_normal).sample(4, seeded(5))
    assert torch.equal(weights, offset + scale * expected)
    assert (weights[:, 1] == 1).all()


def test_default_refuses_layers_whose_initialisation_is_not_known():
    with pytest.raises(ConfigError, match="not the parameter 'weight' of a Embedding; choose xavier, kaiming or norm"):
        initial_distribution(nn.Embedding(3, 2), "default")
