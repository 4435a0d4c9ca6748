"""Synthetic sets with the classes of an attack."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, PoisonSet, SyntheticSet
from kdzoo.errors import ConfigError


def make(kind, **options):
    torch.manual_seed(0)
    inner_network = {"linear": InnerNetwork(nn.Linear(4, 3))}
    return kind(in_shape=(4,), num_classes=3, inner_network=inner_network, **options)


def test_it_is_a_synthetic_set_with_two_classes():
    poisoned, plain = make(PoisonSet, source=2, target=0, steps=2), make(SyntheticSet, steps=2)
    assert (poisoned.source, poisoned.target) == (2, 0)
    assert poisoned.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(poisoned.state_dict()[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": 1, "target": 1}, "source and target must be different classes, got 1 for both"),
        ({"source": 3, "target": 1}, r"source must be an integer in 0..2, got 3"),
        ({"source": 0, "target": -1}, r"target must be an integer in 0..2, got -1"),
        ({"source": 0, "target": 1, "steps": 0}, "steps must be an integer >= 1"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(PoisonSet, **options)
