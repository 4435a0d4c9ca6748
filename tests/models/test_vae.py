"""The variational autoencoder: sizes, its bound against independent formulas, bits, and what it rejects."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F  # noqa: N812

from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.families import positive_scale
from kdzoo.models import VAE
from tests.models.packaged import packaged

SMALL = {"in_shape": (1, 8, 8), "num_classes": 3, "latent": 2, "width": 5}
VARIANTS = {
    "mlp": {},
    "conv": {"network": "conv"},
    "conditional": {"conditional": True},
    "conv_conditional": {"network": "conv", "conditional": True},
    "binarised": {"pixels": "binarised"},
    "normal": {"pixels": "normal", "scale": None},
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def build(**options):
    torch.manual_seed(0)
    return VAE(**{**SMALL, **options})


def batch(n=6):
    torch.manual_seed(1)
    return {"input": torch.rand(n, 1, 8, 8), "target": torch.arange(n) % 3}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (64 * 5 + 5) + (5 * 5 + 5) + (5 * 4 + 4) + (2 * 5 + 5) + (5 * 5 + 5) + (5 * 64 + 64)),
        ({"depth": 1}, (64 * 5 + 5) + (5 * 4 + 4) + (2 * 5 + 5) + (5 * 64 + 64)),
        # The class is read by the first layers of encoder and decoder.
        ({"depth": 1, "conditional": True}, (67 * 5 + 5) + (5 * 4 + 4) + (5 * 5 + 5) + (5 * 64 + 64)),
        ({"depth": 1, "pixels": "normal", "scale": None}, (64 * 5 + 5) + (5 * 4 + 4) + (2 * 5 + 5) + (5 * 128 + 128)),
    ],
)
def test_parameter_count(options, expected):
    assert count(build(**options)) == expected


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_samples_and_gradients_of_every_variant(options):
    model = build(**options)
    assert model(torch.zeros(4, 1, 8, 8)).shape == (4, 1, 8, 8)
    sum(model.negative_elbo(batch(), model.elbo_noise(6)).values()).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("conditional", [False, True])
def test_the_bound_is_that_of_an_autoencoder_written_by_hand(conditional):
    """z = mu + sigma eps; the term of z is KL(N(mu, sigma^2) || N(0, 1)), that of the image a cross entropy."""
    model, data = build(conditional=conditional).double(), batch()
    noise = {"z": torch.randn(6, 2, dtype=torch.float64)}
    label = [torch.eye(3, dtype=torch.float64)[data["target"]]] if conditional else []
    node = model.latents()["z"]
    mean, raw = node.posterior.net(data["input"].double(), *label).chunk(2, 1)
    deviation = positive_scale(raw)
    logits = model.targets()["image"].conditional.net(mean + deviation * noise["z"], *label)
    terms = model.negative_elbo(data, noise)
    expected = kl_divergence(Normal(mean, deviation), Normal(torch.zeros(2), torch.ones(2))).sum(1)
    torch.testing.assert_close(terms["z"], expected, rtol=1e-5, atol=1e-5)
    crossed = F.binary_cross_entropy_with_logits(logits, data["input"].double(), reduction="none")
    torch.testing.assert_close(terms["image"], crossed.sum((1, 2, 3)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-4, 4)), min_size=1, max_size=4))
def test_the_divergence_of_a_code_is_the_closed_form(raw):
    """1/2 (tr S + mu^2 - k - log det S) for any posterior, Kingma & Welling 2014, appendix B."""
    model = VAE(in_shape=(1, 2, 2), latent=len(raw), width=2).double()
    means, raw_scales = torch.tensor(raw, dtype=torch.float64).T
    fixed = torch.cat([means, raw_scales])
    model.latents()["z"].posterior.net.forward = lambda image: fixed.expand(len(image), -1)
    term = model.negative_elbo({"input": torch.zeros(1, 1, 2, 2)}, model.elbo_noise(1))["z"]
    variances = positive_scale(raw_scales).square()
    expected = 0.5 * (variances + means.square() - 1 - variances.log()).sum()
    torch.testing.assert_close(term[0], expected, rtol=1e-4, atol=1e-5)  # the prior's deviation is 1 + 1e-6


def test_the_divergence_of_a_code_is_the_mean_log_ratio_of_a_million_samples():
    model = build(latent=3)
    data = {"input": batch(1)["input"]}
    with torch.no_grad():
        expected = float(model.negative_elbo(data, model.elbo_noise(1))["z"])
        mean, raw = model.latents()["z"].posterior.net(data["input"]).chunk(2, 1)
    posterior = Normal(mean.double(), positive_scale(raw.double()))
    codes = posterior.sample((1_000_000,))
    prior = Normal(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    ratios = (posterior.log_prob(codes) - prior.log_prob(codes)).sum((1, 2))
    assert abs(float(ratios.mean()) - expected) < 4 * float(ratios.std()) / 1000


def test_the_prior_of_a_conditional_code_is_standard_normal_for_every_class():
    model = build(conditional=True)
    trace = model.rollout(model.noise(3), {"label": torch.eye(3)})
    prior = trace.distributions["z"]
    assert prior.mean.abs().max() == 0
    torch.testing.assert_close(prior.stddev, torch.ones(3, 2))
    assert (trace.distributions["image"].mean.diff(dim=0).flatten(1).norm(dim=1) > 0).all()


def test_binarised_pixels_are_bits_with_the_grey_values_as_probabilities():
    model = build(pixels="binarised")
    grey = {"input": torch.tensor([0.0, 0.3, 1.0, 0.5]).repeat(16).reshape(1, 1, 8, 8).expand(4000, -1, -1, -1)}
    bits = model.observed_targets(grey, model.elbo_noise(4000))["image"]
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    # 4 standard errors of 4000 x 16 draws
    torch.testing.assert_close(
        bits.mean((0, 1)).reshape(16, 4).mean(0), torch.tensor([0.0, 0.3, 1.0, 0.5]), atol=0.008, rtol=0
    )
    noise = model.elbo_noise(6)
    bits = model.observed_targets(batch(), noise)["image"]
    plain = build()
    expected = plain.negative_elbo({"input": bits}, {"z": noise["z"]})
    torch.testing.assert_close(model.negative_elbo(batch(), noise), expected)


def test_the_configurations_have_the_defaults_of_the_signature():
    node = packaged("student", "vae")
    assert node.pop("_target_") == "kdzoo.models.VAE"
    assert node == {
        "latent": 8,
        "network": "mlp",
        "width": 64,
        "depth": 2,
        "pixels": "bernoulli",
        "scale": math.sqrt(0.05),
        "conditional": False,
    }
    assert packaged("teacher", "vae")["width"] > node["width"]
    for group in ("teacher", "student"):
        assert packaged(group, "vae_conv")["network"] == "conv"
        assert packaged(group, "vae_conditional")["conditional"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent must be an integer >= 1, got 0"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"network": "rnn"}, "network must be one of mlp, conv, got 'rnn'"),
        ({"pixels": "poisson"}, "pixels must be one of bernoulli, binarised, normal, got 'poisson'"),
        ({"pixels": "normal", "scale": -1.0}, "scale must be finite and > 0, got -1.0"),
        ({"network": "conv", "depth": 4}, "in_shape must be at least 16 x 16 for 4 halvings, got 8 x 8"),
        (
            {"conditional": True, "num_classes": None},
            "num_classes must be an integer >= 1 where conditional is true, got None",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build(**options)


def test_hidden_labels_are_an_error_that_names_the_setting():
    model = build(conditional=True)
    hidden = {**batch(), "target": torch.full((6,), -100)}
    with pytest.raises(DataError, match=r"^node 'label': classes must be in 0\.\.2, .*set data.labels_per_class=null"):
        model.negative_elbo(hidden, model.elbo_noise(6))


def test_data_outside_of_the_range_of_bits_are_rejected():
    with pytest.raises(DataError, match=r"^node 'image': Bernoulli takes values in \[0\.0, 1\.0\], the data are in"):
        build().negative_elbo({"input": batch()["input"] - 1}, {"z": torch.zeros(6, 2)})
