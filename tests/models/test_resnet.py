"""The residual network for small images: published sizes, shortcut, initialisation and refusals."""

import re

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models import ResNet


def count(model):
    return sum(p.numel() for p in model.parameters())


def published_count(depth, width=16, channels=3, classes=10):
    """Section 4.2 by hand: 3 x 3 convolutions without bias, scale and shift per norm, one linear layer."""
    n, w = (depth - 2) // 6, width
    stem = 9 * channels * w + 2 * w
    stage1 = 2 * n * (9 * w * w + 2 * w)
    stage2 = 9 * w * 2 * w + (2 * n - 1) * 9 * (2 * w) ** 2 + 2 * n * 2 * (2 * w)
    stage3 = 9 * 2 * w * 4 * w + (2 * n - 1) * 9 * (4 * w) ** 2 + 2 * n * 2 * (4 * w)
    return stem + stage1 + stage2 + stage3 + 4 * w * classes + classes


# The millions are those of the paper's table 6; option A's shortcuts add no parameter, option B would add
# 16 * 32 + 32 * 64 weights and the count of depth 20 would be 272k.
@pytest.mark.parametrize(
    ("depth", "exact", "millions"),
    [(20, 269_722, "0.27"), (32, 464_154, "0.46"), (44, 658_586, "0.66"), (56, 853_018, "0.85")],
)
def test_parameter_count_is_the_published_one(depth, exact, millions):
    model = ResNet(in_shape=(3, 32, 32), num_classes=10, depth=depth, width=16)
    assert count(model) == published_count(depth) == exact
    assert f"{count(model) / 1e6:.2f}" == millions


@pytest.mark.parametrize("depth", [8, 14, 26, 110])
def test_depth_counts_the_weighted_layers(depth):
    model = ResNet(in_shape=(1, 8, 8), num_classes=3, depth=depth, width=2)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert count(model) == published_count(depth, width=2, channels=1, classes=3)


def test_stages_have_the_published_shapes():
    model = ResNet(in_shape=(3, 32, 32), num_classes=10, depth=20)
    h, shapes = model.stem(torch.randn(2, 3, 32, 32)), []
    for stage in model.stages:
        h = stage(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_shortcut_keeps_every_second_pixel_and_pads_channels_with_zeros():
    block = ResNet(in_shape=(1, 9, 9), num_classes=2, width=2).stages[1][0].eval()
    nn.init.zeros_(block.conv2.weight)  # leaves the shortcut alone
    x = torch.rand(1, 2, 9, 9)
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 2:], torch.zeros(1, 2, 5, 5))


def test_initialisation_is_that_of_he():
    torch.manual_seed(0)
    model = ResNet(in_shape=(3, 32, 32), num_classes=10, depth=20)
    conv = model.stages[2][1].conv1.weight  # fan in 64 * 9
    assert conv.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert model.head.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18}, "depth must be 6n + 2 (8, 14, 20, 26, 32, 44, 56, 110, ...), got 18"),
        ({"depth": 2}, "depth must be an integer >= 8, got 2"),
        ({"depth": 20.0}, "depth must be an integer >= 8, got 20.0"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"in_shape": (1, 8, 7)}, "in_shape must be at least 8 x 8 for two halvings, got 8 x 7"),
        ({"in_shape": (64,)}, "in_shape (channels, height, width) must be 3 integers >= 1, got (64,)"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ResNet(**{"in_shape": (1, 8, 8), "num_classes": 2, **options})
