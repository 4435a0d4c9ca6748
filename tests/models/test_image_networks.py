"""Networks between images and vectors: sizes, their formulas and what they reject."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kdzoo.errors import ConfigError
from kdzoo.models.image_networks import Downsampling, ImageDecoder, ImageEncoder, Upsampling, sides


def count(model):
    return sum(p.numel() for p in model.parameters())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(8, 30), st.integers(8, 30), st.integers(1, 3), st.sampled_from([None, "instance"])
)
def test_both_directions_have_the_same_sizes_for_every_image(channels, height, width, depth, norm):
    shape = (channels, height, width)
    down = Downsampling(shape, width=2, depth=depth, norm=norm)
    up = Upsampling(shape, width=2, depth=depth, norm=norm)
    features = down(torch.randn(2, *shape))
    assert features.shape[1:] == down.out_shape == up.in_shape
    assert up(features).shape[1:] == shape


def test_sides_are_halved_rounding_up():
    assert sides((28, 28), 2)[-1] == (7, 7)
    assert sides((8, 5), 3) == [(8, 5), (4, 3), (2, 2), (1, 1)]


@pytest.mark.parametrize(
    ("norm", "expected"), [(None, (8 * 9 + 8) + (16 * 8 * 9 + 16)), ("batch", (8 * 9 + 8) + (16 * 8 * 9 + 2 * 16))]
)
def test_encoder_parameters(norm, expected):
    """The first convolution has a bias and no norm; a norm replaces the bias of the others by scale and shift."""
    assert count(ImageEncoder((1, 28, 28), 5, width=8, norm=norm)) == expected + 16 * 49 * 5 + 5


def test_decoder_parameters():
    # linear, 16 -> 8 channels, 8 -> 1
    assert count(ImageDecoder(5, (1, 28, 28), width=8)) == 6 * 16 * 49 + (16 * 8 * 16 + 8) + (8 * 16 + 1)


def test_decoder_is_its_formula():
    decoder = ImageDecoder(5, (1, 7, 7), width=3, depth=1, activation="tanh")
    code, label = torch.randn(4, 3), torch.randn(4, 2)
    features = torch.tanh(decoder.head(torch.cat([code, label], 1))).reshape(4, 3, 4, 4)
    convolution = decoder.image.steps[0][0]
    expected = F.conv_transpose2d(features, convolution.weight, convolution.bias, stride=2, padding=1)[:, :, :7, :7]
    torch.testing.assert_close(decoder(code, label), expected)


def test_encoder_is_its_formula():
    encoder = ImageEncoder((1, 6, 6), 4, width=2, depth=1, activation="leaky_relu", conditions=3)
    image, label = torch.randn(5, 1, 6, 6), torch.randn(5, 3)
    planes = label.reshape(5, 3, 1, 1).repeat(1, 1, 6, 6)
    convolution = encoder.features.steps[0][0]
    features = F.conv2d(torch.cat([image, planes], 1), convolution.weight, convolution.bias, stride=2, padding=1)
    torch.testing.assert_close(encoder(image, label), encoder.head(F.leaky_relu(features).flatten(1)))


def test_norms_are_left_out_at_the_pixels():
    down, up = (kind((1, 8, 8), norm="batch") for kind in (Downsampling, Upsampling))
    assert [[type(m) for m in step] for step in down.steps] == [
        [nn.Conv2d, nn.ReLU],
        [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
    ]
    assert [[type(m) for m in step] for step in up.steps] == [
        [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU],
        [nn.ConvTranspose2d],
    ]


@pytest.mark.parametrize("kind", [Downsampling, Upsampling])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 4}, "in_shape must be at least 16 x 16 for 4 halvings, got 8 x 8"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"norm": "layer"}, "norm must be one of"),
        ({"activation": "step"}, "activation must be one of"),
    ],
)
def test_errors(kind, options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        kind((1, 8, 8), **options)
