"""The network that tells real from generated strings."""

import pytest
import torch
from torch.nn.functional import relu

from kdzoo.errors import ConfigError
from kdzoo.models.text_discriminator import WIDTHS, TextDiscriminator


def test_the_logit_is_that_of_the_largest_filter_values():
    torch.manual_seed(0)
    model, string = TextDiscriminator(vocab_size=5, width=3).double(), torch.tensor([0, 2, 4, 4])
    embedded = model.embedding(string)
    features = []
    for width, layer in zip(WIDTHS, model.filters, strict=True):
        for weight, bias in zip(layer.weight, layer.bias, strict=True):
            padded = torch.cat([torch.zeros(width - 1, 3), embedded])
            values = [(weight.T * padded[t : t + width]).sum() + bias for t in range(len(string))]
            features.append(relu(torch.stack(values)).max())
    expected = model.head(torch.stack(features))
    torch.testing.assert_close(model(string[None]), expected)


def test_strings_of_one_symbol_are_short_enough():
    assert TextDiscriminator(vocab_size=5, width=2)(torch.zeros(3, 1, dtype=torch.int64)).shape == (3,)


def test_the_order_of_symbols_can_be_told():
    torch.manual_seed(0)
    model = TextDiscriminator(vocab_size=3, width=8)
    strings = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(strings), torch.tensor([1.0, 0.0])).backward()
        optimizer.step()
    assert model(strings).sign().tolist() == [1, -1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be an integer >= 2, got 1"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        TextDiscriminator(**{"vocab_size": 5, **options})
