"""Relevance against conditional means over every point of a small product measure, and gradients against autograd."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models import MLP, MPS
from kdzoo.tensor_networks.features import Legendre, Polynomial
from kdzoo.tensor_networks.relevance import conditional_effect, derivatives, main_effect, saliency
from kdzoo.tensor_networks.sobol import feature_moments, sobol_indices

MAPS = {"powers": Polynomial(1), "cubes": Polynomial(3), "legendre": Legendre(2)}


def chain(n, feature_map, out_site, seed=0):
    torch.manual_seed(seed)
    return MPS(n, 2, min(3, n + 1), feature_map=feature_map, out_site=out_site, noise=3.0, engine="autograd").double()


def tensors(model):
    return model.sites(), model.centre.detach(), model.out_site


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("n", "m"), [(1, 0), (1, 1), (3, 0), (3, 2), (4, 2), (4, 4)])
def test_relevance_is_that_of_the_definition(name, n, m):
    model = chain(n, MAPS[name], m)
    values = torch.rand(n, 3, dtype=torch.float64)
    at = torch.cartesian_prod(*[torch.arange(3)] * n).reshape(-1, n)
    points = values.T.gather(0, at)
    with torch.no_grad():
        outputs = model(points)
    whole = outputs.unflatten(0, (3,) * n)
    measure, phi = feature_moments(MAPS[name].features(values)), MAPS[name].features(points.T)
    by_itself, by_rest = (f(*tensors(model), measure, phi) for f in (main_effect, conditional_effect))
    mean = outputs.mean(0)
    for i in range(n):
        rest = tuple(axis for axis in range(n) if axis != i)
        conditional = whole.mean(rest) if rest else whole  # (3, outputs)
        torch.testing.assert_close(by_itself[:, :, i], conditional[at[:, i]] - mean, rtol=1e-10, atol=1e-10)
        without = whole.mean(i, keepdim=True).expand_as(whole).flatten(0, n - 1)
        torch.testing.assert_close(by_rest[:, :, i], outputs - without, rtol=1e-10, atol=1e-10)


def test_mean_squares_of_relevance_are_sobol_indices():
    model = chain(6, MAPS["powers"], 3)
    values = torch.rand(6, 50, dtype=torch.float64)
    measure = feature_moments(MAPS["powers"].features(values))
    found = sobol_indices(*tensors(model), measure)
    squares = main_effect(*tensors(model), measure, MAPS["powers"].features(values)).square().mean(0)
    torch.testing.assert_close(squares, found.first * found.variance[:, None])


def test_derivatives_are_those_of_autograd():
    model = chain(5, MAPS["cubes"], 2)
    x = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    found = derivatives(*tensors(model), MAPS["cubes"].features(x.detach().T))
    slopes = torch.stack([torch.zeros(5, 3), torch.ones(5, 3), 2 * x.detach().T, 3 * x.detach().T ** 2], 1)
    by_input = torch.einsum("soid,ids->soi", found, slopes.double())
    expected = torch.stack([torch.autograd.grad(model(x)[:, o].sum(), x)[0] for o in (0, 1)], 1)
    torch.testing.assert_close(by_input, expected)


def test_a_long_chain_is_finite_though_its_halves_are_not():
    torch.manual_seed(0)
    model = MPS(784, 2, 4)
    x = torch.rand(784, 20, dtype=torch.float64)
    measure, phi = feature_moments(model.feature_map(x)), model.feature_map(x[:, :2])
    sites = [core * (8.0 if i < 392 else 0.125) for i, core in enumerate(model.sites())]  # 2^1176 and 2^-1176
    for relevance in (main_effect, conditional_effect):
        found = relevance(sites, model.centre.detach(), 392, measure, phi)
        torch.testing.assert_close(found, relevance(model.sites(), model.centre.detach(), 392, measure, phi))


def test_saliency_is_the_absolute_gradient_and_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model = MLP(in_shape=(2, 3), num_classes=4, hidden=[5], dropout=0.5)
    model.train()
    x = torch.randn(3, 2, 3)
    found = saliency(model, x)
    assert found.shape == (3, 4, 2, 3)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    for s in range(3):
        expected = torch.func.jacrev(lambda one: model(one[None])[0])(x[s]).abs()
        torch.testing.assert_close(found[s], expected)


def test_saliency_of_a_chain_is_that_of_its_derivatives():
    model = chain(4, MAPS["powers"], 2)
    x = torch.rand(3, 4, dtype=torch.float64)
    expected = derivatives(*tensors(model), MAPS["powers"].features(x.T))[..., 1].abs()
    torch.testing.assert_close(saliency(model, x), expected)


def test_saliency_works_where_gradients_are_off():
    with torch.no_grad():
        found = saliency(nn.Linear(2, 3, bias=False), torch.ones(1, 2))
    assert found.shape == (1, 3, 2)
    assert not found.requires_grad


def test_a_model_without_gradients_is_refused_and_stays_as_it_was():
    class BlackBox(nn.Module):
        def forward(self, x):
            return x.detach() * 2

    model = BlackBox()
    with pytest.raises(ConfigError, match=r"^saliency needs a model with gradients, got BlackBox without$"):
        saliency(model, torch.ones(1, 2))
    assert model.training
