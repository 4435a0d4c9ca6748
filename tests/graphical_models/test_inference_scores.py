"""Bounds and active units against a linear model, whose likelihood and posterior are known exactly."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from kdzoo.graphical_models import Graph, Latent, Normal, Target
from kdzoo.graphical_models.inference_scores import (
    active_units,
    can_be_weighted,
    importance_weighted_bound,
    infer_means,
    negative_bound,
    posterior_means,
)
from kdzoo.models import VAE, HelmholtzMachine, VectorVRNN

SCALE = 0.5


def linear_model(posterior_scale=None):
    """Probabilistic PCA, y = W z + noise; the posterior is exact if the columns of W are orthogonal.

    It may instead have another deviation, given by its raw value.
    """
    decoder = nn.Linear(2, 4, bias=False, dtype=torch.float64)
    posterior = nn.Linear(4, 4, dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight / SCALE**2
    deviations = precision.inverse().diagonal().sqrt()
    # positive_scale(raw) = softplus(raw) / ln 2 + 1e-6
    raw = torch.expm1((deviations - 1e-6) * math.log(2)).log()
    with torch.no_grad():
        decoder.weight.copy_(weight)
        posterior.weight.zero_()
        posterior.weight[:2] = precision.inverse() @ weight.T / SCALE**2
        posterior.bias.zero_()
        posterior.bias[2:] = raw if posterior_scale is None else posterior_scale
    z = Latent("z", Normal((2,)), posterior=posterior, posterior_parents="y")
    model = Graph([z, Target("y", Normal((4,), SCALE), decoder, "z", source="input")]).double()
    covariance = weight @ weight.T + SCALE**2 * torch.eye(4, dtype=torch.float64)
    return model, MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)


def batches(distribution, sizes=(60, 41)):
    torch.manual_seed(0)
    return [{"input": distribution.sample((n,))} for n in sizes]


@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_every_bound_is_the_likelihood(samples):
    model, truth = linear_model()
    data = batches(truth)
    expected = float(truth.log_prob(torch.cat([batch["input"] for batch in data])).mean())
    assert importance_weighted_bound(model, data, samples) == pytest.approx(expected, abs=1e-4)
    # The bound draws the reconstruction term, and has the divergence in closed form.
    assert -negative_bound(model, data) == pytest.approx(expected, abs=0.5)


def test_more_samples_bring_the_bound_closer_to_the_likelihood():
    model, truth = linear_model(posterior_scale=0.0)  # deviations of 1, much too wide
    data = batches(truth)
    expected = float(truth.log_prob(torch.cat([batch["input"] for batch in data])).mean())
    bounds = [importance_weighted_bound(model, data, samples) for samples in (1, 10, 2000)]
    assert bounds[0] < bounds[1] < bounds[2] < expected + 0.05
    assert bounds[2] == pytest.approx(expected, abs=0.05)
    assert bounds[0] < expected - 1


def test_the_division_into_chunks_changes_only_the_random_numbers():
    model, truth = linear_model()
    data = batches(truth)
    whole, parts = (importance_weighted_bound(model, data, 9, chunk) for chunk in (10_000, 4))
    assert whole == pytest.approx(parts, abs=1e-4)


def test_every_sample_of_an_observation_sees_the_same_bits():
    torch.manual_seed(0)
    model = VAE(in_shape=(1, 4, 4), latent=1, width=3, pixels="binarised")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # posterior and prior are equal, and each bit has probability 1/2
    grey = [{"input": torch.rand(3, 1, 4, 4)}]
    assert importance_weighted_bound(model, grey, 5) == pytest.approx(-16 * math.log(2), rel=1e-5)
    with torch.no_grad():
        model.targets()["image"].conditional.net.layers[-1].bias.fill_(1.0)
    # The weights of an observation are equal now, unless its samples saw different bits.
    one, many = (importance_weighted_bound(model, [{"input": torch.full((400, 1, 4, 4), 0.5)}], k) for k in (1, 5))
    assert one == pytest.approx(many, abs=0.2)


def test_means_and_active_units():
    model, truth = linear_model()
    data = batches(truth, (500, 500))
    observed = torch.cat([batch["input"] for batch in data])
    node = model.latents()["z"]
    with torch.no_grad():
        expected = node.posterior.net(observed)[:, :2]
    torch.testing.assert_close(posterior_means(model, data)["z"], expected)
    torch.testing.assert_close(infer_means(model, data[0]).values["z"].detach(), expected[:500])
    assert active_units(model, data)["z"].tolist() == [True, True]
    with torch.no_grad():
        node.posterior.net.weight[1] *= 1e-3
    assert active_units(model, data)["z"].tolist() == [True, False]


def test_models_with_a_sequence_or_another_way_to_infer_are_not_weighted():
    assert can_be_weighted(VAE(in_shape=(1, 4, 4)))
    assert not can_be_weighted(VectorVRNN(in_shape=(5, 3), latents=2, width=3, hidden=3))
    assert not can_be_weighted(HelmholtzMachine(in_shape=(2,), width=3))
    without_posterior = Graph([Latent("z", Normal((2,))), Target("y", Normal((2,), 1.0), nn.Identity(), "z")])
    assert not can_be_weighted(without_posterior)
