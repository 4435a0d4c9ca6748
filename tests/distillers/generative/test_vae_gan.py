"""Training of encoder, generator and discriminator together."""

import torch

from kdzoo.distillers import VAEGAN
from tests.distillers.generative.test_adversarial import gan, trained_parts


def batch():
    torch.manual_seed(1)
    noise = {"noise.z": torch.randn(6, 3), "encoded_noise.z": torch.randn(6, 3)}
    return {"input": torch.rand(6, 1, 8, 8), **noise, "between": torch.rand(6)}


def test_each_term_reaches_the_parts_that_the_paper_trains_by_it():
    distiller = VAEGAN(gan(encoder=True), penalty="gradient")
    expected = {
        "latent": {"encoder"},
        "reconstruction": {"encoder", "generator"},
        "generator": {"generator"},
        "real": {"discriminator"},
        "generated": {"discriminator"},
        "penalty": {"discriminator"},
    }
    assert {name: trained_parts(distiller, batch(), name) for name in expected} == expected


def test_the_terms_follow_their_definitions():
    model = gan(encoder=True).double().eval()
    values = {key: value.double() for key, value in batch().items()}
    terms = VAEGAN(model).eval().losses(values)
    real, discriminator = values["input"], model.discriminator
    mean, raw = model.latents()["z"].posterior.net(real).chunk(2, 1)
    posterior = model.latents()["z"].family.distribution(torch.cat([mean, raw], 1))
    deviation = posterior.stddev
    torch.testing.assert_close(
        terms["latent"],
        0.5 * (mean.square() + deviation.square() - 1).sum(1) - deviation.log().sum(1),
        rtol=1e-5,
        atol=1e-5,
    )
    generate = model.targets()["image"].conditional.net
    encoded, drawn = generate(mean + deviation * values["encoded_noise.z"]), generate(values["noise.z"])
    distance = discriminator.features(encoded) - discriminator.features(real)
    torch.testing.assert_close(terms["reconstruction"], distance.square().sum(1) / 2)
    log_real = [torch.log(torch.sigmoid(discriminator(samples))) for samples in (encoded, drawn)]
    torch.testing.assert_close(terms["generator"], -(log_real[0] + log_real[1]) / 2)
    log_generated = [torch.log(torch.sigmoid(-discriminator(samples))) for samples in (encoded, drawn)]
    torch.testing.assert_close(terms["generated"], -(log_generated[0] + log_generated[1]) / 2)
    torch.testing.assert_close(terms["real"], -torch.log(torch.sigmoid(discriminator(real))))


def test_with_a_condition_every_term_depends_on_the_class():
    distiller = VAEGAN(gan(encoder=True, conditional=True, num_classes=3)).eval()
    first, second = (distiller.losses({**batch(), "target": (torch.arange(6) + shift) % 3}) for shift in (0, 1))
    assert not [name for name in first if torch.equal(first[name], second[name])]
