import re

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models import ConvNet


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (16 * 9 + 16) + (32 * 16 * 9 + 32) + (32 * 49 * 10 + 10)),
        ({"hidden": 20}, (16 * 9 + 16) + (32 * 16 * 9 + 32) + (32 * 49 * 20 + 20) + (20 * 10 + 10)),
        # batch norm: no bias, but scale and shift per channel
        ({"batch_norm": True}, (16 * 9 + 32) + (32 * 16 * 9 + 64) + (32 * 49 * 10 + 10)),
        ({"channels": [3], "kernel_size": 5}, (3 * 25 + 3) + (3 * 14 * 14 * 10 + 10)),
    ],
)
def test_parameter_count(options, expected):
    assert count(ConvNet(in_shape=(1, 28, 28), num_classes=10, **options)) == expected


def test_feature_maps_halve_rounding_down():
    model = ConvNet(in_shape=(1, 11, 9), num_classes=2, channels=[4, 6], batch_norm=True)
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape)))
    model(torch.randn(3, 1, 11, 9))
    assert shapes == [(3, 4, 5, 4), (3, 6, 2, 2)]


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_the_convolution_keeps_the_size(kernel_size):
    model = ConvNet(in_shape=(1, 9, 12), num_classes=2, channels=[2], kernel_size=kernel_size)
    assert model.blocks[0].conv(torch.zeros(1, 1, 9, 12)).shape == (1, 2, 9, 12)


def test_order_within_a_block():
    block = ConvNet(in_shape=(1, 8, 8), num_classes=2, batch_norm=True).blocks[0]
    assert [type(m) for m in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert list(dict(block.named_children())) == ["conv", "norm", "activation", "pool"]


def test_dropout_acts_before_each_fully_connected_layer_in_training_only():
    model = ConvNet(in_shape=(1, 8, 8), num_classes=2, hidden=64, dropout=0.5)
    x = torch.randn(4, 1, 8, 8)
    assert [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)] == ["dropout", "fc.dropout"]
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"in_shape": (1, 7, 9), "channels": [2, 2, 2]},
            "in_shape must be at least 8 x 8 for 3 poolings, got 7 x 9",
        ),
        ({"in_shape": (64,)}, "in_shape (channels, height, width) must be 3 integers >= 1, got (64,)"),
        ({"in_shape": (0, 8, 8)}, "in_shape (channels, height, width)[0] must be an integer >= 1, got 0"),
        ({"channels": []}, "channels must be a list of integers >= 1, got []"),
        ({"channels": [4, -1]}, "channels[1] must be an integer >= 1, got -1"),
        ({"channels": 4}, "channels must be a list of integers >= 1, got 4"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"kernel_size": 0}, "kernel_size must be an integer >= 1, got 0"),
        ({"hidden": -1}, "hidden must be an integer >= 0, got -1"),
        ({"hidden": [8]}, "hidden must be an integer >= 0, got [8]"),
        ({"batch_norm": "yes"}, "batch_norm must be true or false, got 'yes'"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ConvNet(**{"in_shape": (1, 8, 8), "num_classes": 2, **options})
