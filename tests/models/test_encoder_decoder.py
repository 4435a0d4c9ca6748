"""Decoders and encoders: their sizes with and without a condition, and what they reject."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models.encoder_decoder import NETWORKS, decoder_and_encoder

SIZES = {"latent": 3, "classes": 2, "width": 4, "depth": 2}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [0, 2])
def test_both_networks_read_the_condition(network, classes):
    """A pixel has two parameters here, as a normal one of learned deviation has."""
    decoder, encoder = decoder_and_encoder(network, (1, 8, 8), (2, 8, 8), **{**SIZES, "classes": classes})
    condition = [torch.zeros(5, classes)] if classes else []
    assert decoder(torch.zeros(5, 3), *condition).shape == (5, 2, 8, 8)
    assert encoder(torch.zeros(5, 1, 8, 8), *condition).shape == (5, 6)


def test_only_convolutions_are_normalised():
    networks = {name: decoder_and_encoder(name, (1, 8, 8), (1, 8, 8), **SIZES, norm="batch") for name in NETWORKS}
    norms = {
        name: [any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules()) for network in pair]
        for name, pair in networks.items()
    }
    assert norms == {"mlp": [False, False], "conv": [True, True]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "rnn"}, "network"),
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth"),
        ({"network": "conv", "depth": 4}, "4 halvings"),
    ],
)
def test_arguments_out_of_range_are_rejected(options, message):
    options = {"network": "mlp", **SIZES, **options}
    with pytest.raises(ConfigError, match=message):
        decoder_and_encoder(options.pop("network"), (1, 8, 8), (1, 8, 8), **options)
