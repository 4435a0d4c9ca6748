"""A layer whose weight has about the spectral norm 1."""

import pytest
import torch
from torch import nn

from kdzoo.models.spectral_norm import SpectralNorm


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 5, 3, padding=1)], ids=["linear", "conv"])
def test_the_weight_is_divided_by_its_largest_singular_value(layer):
    normalised = SpectralNorm(layer)
    for _ in range(50):
        normalised.after_step()
    inputs = torch.randn(2, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 7, 7)
    largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
    bias = layer.bias.detach() if isinstance(layer, nn.Linear) else layer.bias.detach()[:, None, None]
    torch.testing.assert_close(normalised(inputs).detach(), (layer(inputs).detach() - bias) / largest + bias)


def test_the_first_estimate_is_close():
    torch.manual_seed(1)
    layer = nn.Linear(64, 32)
    estimate = torch.dot(SpectralNorm(layer).left, layer.weight.detach() @ SpectralNorm(layer).right)
    assert estimate.item() == pytest.approx(torch.linalg.svdvals(layer.weight.detach())[0].item(), rel=0.05)


def test_a_call_changes_no_state_and_a_step_follows_the_weights():
    layer = nn.Linear(3, 2)
    normalised = SpectralNorm(layer)
    before = {name: value.clone() for name, value in normalised.state_dict().items()}
    normalised.train()(torch.ones(1, 3)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in normalised.state_dict().items())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]))
        layer.bias.zero_()
    normalised.after_step()
    normalised.after_step()
    torch.testing.assert_close(normalised(torch.tensor([[0.0, 1.0, 0.0]])).detach(), torch.tensor([[0.0, 1.0]]))


def test_the_gradient_includes_that_of_the_norm():
    torch.manual_seed(0)
    normalised = SpectralNorm(nn.Linear(3, 2, bias=False)).double()
    inputs = torch.randn(1, 3, dtype=torch.float64)
    normalised(inputs).sum().backward()
    # A weight that only grows in scale leaves the normalised weight as it is.
    scale_gradient = (normalised.layer.weight.grad * normalised.layer.weight).sum()
    assert scale_gradient.item() == pytest.approx(0.0, abs=1e-12)
