"""The network that is trained on the whole data set."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import FullDataNetwork, InnerNetwork
from kdzoo.errors import ConfigError


def test_it_starts_like_the_first_inner_network_and_can_be_trained():
    first = InnerNetwork(nn.Linear(4, 3), init="normal", mean=1.0, std=0.0)
    full = FullDataNetwork(inner_network={"a": first, "b": InnerNetwork(nn.Linear(4, 3))})
    assert all((parameter == 1).all() and parameter.requires_grad for parameter in full.parameters())
    assert full(torch.ones(2, 4)).tolist() == [[5.0] * 3] * 2
    full.network.weight.data.fill_(0)
    assert not first.model.weight.requires_grad
    assert (first.model.weight != 0).any()


def test_it_starts_from_the_fixed_weights_of_its_inner_network():
    fixed = InnerNetwork(nn.Linear(4, 3), fixed=7)
    networks = [FullDataNetwork(inner_network={"a": fixed}) for _ in range(2)]
    weights = [nn.utils.parameters_to_vector(network.parameters()).detach() for network in networks]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], fixed.sample(1)[0])


def test_it_does_not_start_from_the_trained_networks_of_a_pool():
    pooled = InnerNetwork(nn.Linear(4, 3), pool=2)  # not trained: drawing from the pool would be refused
    assert FullDataNetwork(inner_network={"a": pooled})(torch.zeros(1, 4)).tolist() == [[0.0] * 3]


def test_buffers_of_the_model_are_kept():
    model = nn.Sequential(nn.Linear(4, 3))
    model.register_buffer("scale", torch.tensor(2.0))
    assert float(FullDataNetwork(inner_network={"a": InnerNetwork(model)}).network.scale) == 2.0


@pytest.mark.parametrize("inner_network", [None, {}])
def test_an_inner_network_is_needed(inner_network):
    with pytest.raises(ConfigError, match="inner_network must name at least one network"):
        FullDataNetwork(inner_network=inner_network)
