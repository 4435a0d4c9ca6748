"""LeNet: published sizes, formula and refusals."""

import re

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models import LeNet


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("in_shape", [(1, 28, 28), (3, 32, 32)])
def test_classic_sizes(in_shape):
    model, shapes = LeNet(in_shape=in_shape, num_classes=10), {}
    for name in ("blocks.0.conv", "blocks.0", "blocks.1.conv", "blocks.1", "fc.0", "fc.1", "head"):
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    model(torch.zeros(2, *in_shape))
    assert shapes == {
        "blocks.0.conv": (6, 28, 28),
        "blocks.0": (6, 14, 14),
        "blocks.1.conv": (16, 10, 10),
        "blocks.1": (16, 5, 5),
        "fc.0": (120,),
        "fc.1": (84,),
        "head": (10,),
    }
    convolutions = (in_shape[0] * 6 * 25 + 6) + (6 * 16 * 25 + 16)
    assert count(model) == convolutions + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)


@pytest.mark.parametrize("in_shape", [(1, 12, 12), (2, 12, 40), (1, 31, 33), (3, 32, 45), (1, 64, 64)])
def test_other_sizes(in_shape):
    model = LeNet(in_shape=in_shape, num_classes=2)
    assert model(torch.randn(3, *in_shape)).shape == (3, 2)


def test_forward_is_the_formula():
    model = LeNet(in_shape=(1, 28, 28), num_classes=10)
    F = torch.nn.functional
    x = hidden = torch.randn(3, 1, 28, 28)
    for block, padding in zip(model.blocks, (2, 0), strict=True):
        hidden = F.max_pool2d(F.relu(F.conv2d(hidden, block.conv.weight, block.conv.bias, padding=padding)), 2)
    hidden = hidden.flatten(1)
    for layer in model.fc:
        hidden = F.relu(hidden @ layer.linear.weight.T + layer.linear.bias)
    torch.testing.assert_close(model(x), hidden @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize(
    ("in_shape", "message"),
    [
        ((1, 11, 28), "in_shape must be at least 12 x 12 for two 5 x 5 convolutions and poolings, got 11 x 28"),
        ((1, 8, 8), "in_shape must be at least 12 x 12 for two 5 x 5 convolutions and poolings, got 8 x 8"),
        ((784,), "in_shape (channels, height, width) must be 3 integers >= 1, got (784,)"),
    ],
)
def test_bad_arguments_are_refused(in_shape, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LeNet(in_shape=in_shape, num_classes=2)
