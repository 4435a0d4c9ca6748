"""The network of an architecture that a set was not learned for."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.unseen_architecture import unseen_architecture
from kdzoo.models import MLP, ConvNet, LeNet

IMAGE = (1, 12, 12)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))


def networks_for(shape, *models):
    inner_networks = {f"net{i}": InnerNetwork(model) for i, model in enumerate(models)}
    return unseen_architecture(SyntheticSet(in_shape=shape, num_classes=3, inner_network=inner_networks))


@pytest.mark.parametrize(
    ("models", "kind"),
    [
        pytest.param([LINEAR], ConvNet, id="linear"),
        pytest.param([LINEAR, MLP(in_shape=IMAGE, num_classes=3)], ConvNet, id="linear and perceptron"),
        pytest.param([LeNet(in_shape=IMAGE, num_classes=3)], MLP, id="convolutional"),
        pytest.param([LINEAR, LeNet(in_shape=IMAGE, num_classes=3)], MLP, id="linear and convolutional"),
    ],
)
def test_its_architecture_is_none_that_the_set_was_learned_for(models, kind):
    (inner_network,) = networks_for(IMAGE, *models).values()
    assert isinstance(inner_network.model, kind)
    assert inner_network.logits(inner_network.held_out(2), torch.zeros(4, *IMAGE)).shape == (2, 4, 3)


def test_a_set_learned_for_both_architectures_has_none():
    models = LeNet(in_shape=IMAGE, num_classes=3), MLP(in_shape=IMAGE, num_classes=3)
    assert networks_for(IMAGE, *models) == {}


@pytest.mark.parametrize("shape", [(7,), (1, 5, 9)], ids=["vectors", "small images"])
def test_inputs_too_small_for_a_convolution_get_a_perceptron(shape):
    linear = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    linear(torch.zeros(2, *shape))
    assert isinstance(networks_for(shape, linear)["unseen"].model, MLP)
