"""The network by which a set is judged that was not made for it."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import Learner, SyntheticSet
from kdzoo.dataset_distillation.unseen_architecture import stranger
from kdzoo.models import MLP, ConvNet, LeNet

IMAGE = (1, 12, 12)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))


def networks_for(shape, *models):
    learners = {f"net{i}": Learner(model) for i, model in enumerate(models)}
    return stranger(SyntheticSet(in_shape=shape, num_classes=3, learner=learners))


@pytest.mark.parametrize(
    ("models", "kind"),
    [
        pytest.param([LINEAR], ConvNet, id="linear"),
        pytest.param([LINEAR, MLP(in_shape=IMAGE, num_classes=3)], ConvNet, id="linear and perceptron"),
        pytest.param([LeNet(in_shape=IMAGE, num_classes=3)], MLP, id="convolutional"),
        pytest.param([LINEAR, LeNet(in_shape=IMAGE, num_classes=3)], MLP, id="linear and convolutional"),
    ],
)
def test_it_is_of_an_architecture_that_the_set_was_not_made_for(models, kind):
    (learner,) = networks_for(IMAGE, *models).values()
    assert isinstance(learner.model, kind)
    assert learner.logits(learner.held_out(2), torch.zeros(4, *IMAGE)).shape == (2, 4, 3)


def test_a_set_made_for_all_has_none():
    models = LeNet(in_shape=IMAGE, num_classes=3), MLP(in_shape=IMAGE, num_classes=3)
    assert networks_for(IMAGE, *models) == {}


@pytest.mark.parametrize("shape", [(7,), (1, 5, 9)], ids=["vectors", "small images"])
def test_what_is_too_small_to_convolve_gets_a_perceptron(shape):
    linear = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    linear(torch.zeros(2, *shape))
    assert isinstance(networks_for(shape, linear)["unseen"].model, MLP)
