"""The small convolutional network: sizes, modules to hook, formula and refusals."""

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
        # norm: no bias, but scale and shift per channel
        ({"norm": "batch"}, (16 * 9 + 32) + (32 * 16 * 9 + 64) + (32 * 49 * 10 + 10)),
        ({"norm": "instance"}, (16 * 9 + 32) + (32 * 16 * 9 + 64) + (32 * 49 * 10 + 10)),
        ({"channels": [3], "kernel_size": 5}, (3 * 25 + 3) + (3 * 14 * 14 * 10 + 10)),
        ({"channels": [3], "kernel_size": 5, "padding": "valid"}, (3 * 25 + 3) + (3 * 12 * 12 * 10 + 10)),
        ({"activation": "tanh", "pooling": "avg"}, (16 * 9 + 16) + (32 * 16 * 9 + 32) + (32 * 49 * 10 + 10)),
    ],
)
def test_parameter_count(options, expected):
    assert count(ConvNet(in_shape=(1, 28, 28), num_classes=10, **options)) == expected


def test_the_small_network_for_digits():
    options = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"}
    assert count(ConvNet(in_shape=(1, 28, 28), num_classes=10, hidden=64, **options)) == 74_650


def test_convnet_3_is_that_of_dataset_condensation_but_for_the_biases_that_its_norm_removes():
    options = {"channels": [128] * 3, "pooling": "avg", "norm": "instance"}
    published = 320_010  # on CIFAR-10, with a bias for each of 3 x 128 channels
    assert count(ConvNet(in_shape=(3, 32, 32), num_classes=10, **options)) == published - 3 * 128


def test_feature_maps_halve_rounding_down():
    model = ConvNet(in_shape=(1, 11, 9), num_classes=2, channels=[4, 6], norm="batch")
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape)))
    model(torch.randn(3, 1, 11, 9))
    assert shapes == [(3, 4, 5, 4), (3, 6, 2, 2)]


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_the_convolution_keeps_the_size(kernel_size):
    model = ConvNet(in_shape=(1, 9, 12), num_classes=2, channels=[2], kernel_size=kernel_size)
    assert model.blocks[0].conv(torch.zeros(1, 1, 9, 12)).shape == (1, 2, 9, 12)


@pytest.mark.parametrize(("n_blocks", "kernel_size", "least"), [(3, 1, 8), (1, 5, 6), (2, 3, 10), (3, 5, 36)])
def test_the_smallest_image_of_valid_convolutions(n_blocks, kernel_size, least):
    options = {"num_classes": 2, "channels": [2] * n_blocks, "kernel_size": kernel_size, "padding": "valid"}
    model = ConvNet(in_shape=(1, least, least), **options)
    assert model.blocks(torch.zeros(1, 1, least, least)).shape[2:] == (1, 1)
    with pytest.raises(RuntimeError, match=r"size"):
        model.blocks(torch.zeros(1, 1, least - 1, least))
    with pytest.raises(ConfigError, match=f"^in_shape must be at least {least} x {least} for {n_blocks} poolings"):
        ConvNet(in_shape=(1, least - 1, least), **options)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("instance", nn.GroupNorm)])
def test_order_within_a_block(norm, kind):
    block = ConvNet(in_shape=(1, 8, 8), num_classes=2, norm=norm).blocks[0]
    assert [type(m) for m in block] == [nn.Conv2d, kind, nn.ReLU, nn.MaxPool2d]
    assert list(dict(block.named_children())) == ["conv", "norm", "activation", "pool"]


def test_activation_and_pooling_by_name():
    model = ConvNet(in_shape=(1, 8, 8), num_classes=2, hidden=4, activation="tanh", pooling="avg")
    x = features = torch.randn(3, 1, 8, 8)
    for block in model.blocks:
        features = torch.nn.functional.avg_pool2d(block.conv(features).tanh(), 2)
    expected = model.head(model.fc.linear(features.flatten(1)).tanh())
    torch.testing.assert_close(model(x), expected)


def test_instance_norm_standardises_each_channel_of_each_image():
    block = ConvNet(in_shape=(2, 6, 7), num_classes=2, channels=[3], norm="instance").double().blocks[0]
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    x = torch.randn(4, 2, 6, 7, dtype=torch.float64)
    before, after = block.conv(x), block.norm(block.conv(x))
    mean, var = before.mean((2, 3), keepdim=True), before.var((2, 3), keepdim=True, correction=0)
    scale, shift = block.norm.weight.view(3, 1, 1), block.norm.bias.view(3, 1, 1)
    torch.testing.assert_close(after, (before - mean) / (var + 1e-5).sqrt() * scale + shift)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.0", (3, 4, 14, 14)),
        ("blocks.0.conv", (3, 4, 28, 28)),
        ("blocks.1", (3, 6, 7, 7)),
        ("fc", (3, 5)),
        ("head", (3, 2)),
    ],
)
def test_modules_to_hook(name, shape):
    model, seen = ConvNet(in_shape=(1, 28, 28), num_classes=2, channels=[4, 6], hidden=5), []
    model.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    model(torch.randn(3, 1, 28, 28))
    assert seen == [shape]


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
        ({"norm": "layer"}, "norm must be one of batch, instance, got 'layer'"),
        ({"padding": 1}, "padding must be one of same, valid, got 1"),
        ({"pooling": "none"}, "pooling must be one of max, avg, got 'none'"),
        (
            {"activation": "relux"},
            "activation must be one of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, got 'relux'",
        ),
        (
            {"in_shape": (1, 13, 15), "kernel_size": 5, "padding": "valid"},
            "in_shape must be at least 16 x 16 for 2 poolings and valid 5 x 5 convolutions, got 13 x 15",
        ),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ConvNet(**{"in_shape": (1, 8, 8), "num_classes": 2, **options})
