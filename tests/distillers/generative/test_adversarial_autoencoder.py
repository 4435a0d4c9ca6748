"""Training of an autoencoder whose codes a discriminator compares with the prior."""

import torch

from kdzoo.distillers import AdversarialAutoencoder
from tests.distillers.generative.test_adversarial import gan, trained_parts


def autoencoder(**options):
    return gan(encoder=True, discriminated="code", **options)


def batch():
    torch.manual_seed(1)
    noise = {"noise.z": torch.randn(6, 3), "encoded_noise.z": torch.randn(6, 3)}
    return {"input": torch.rand(6, 1, 8, 8), **noise, "between": torch.rand(6)}


def test_each_term_reaches_the_parts_that_the_paper_trains_by_it():
    distiller = AdversarialAutoencoder(autoencoder(), penalty="gradient")
    expected = {
        "reconstruction": {"encoder", "generator"},
        "generator": {"encoder"},
        "real": {"discriminator"},
        "generated": {"discriminator"},
        "penalty": {"discriminator"},
    }
    assert {name: trained_parts(distiller, batch(), name) for name in expected} == expected


def test_the_terms_follow_their_definitions():
    model = autoencoder().double().eval()
    values = {key: value.double() for key, value in batch().items()}
    terms = AdversarialAutoencoder(model).eval().losses(values)
    latent, generate = model.latents()["z"], model.targets()["image"].conditional.net
    code = latent.family.distribution(latent.posterior.net(values["input"]))
    encoded = code.mean + code.stddev * values["encoded_noise.z"]
    difference = generate(encoded) - values["input"]
    told, drawn = (model.discriminator(codes) for codes in (encoded, values["noise.z"]))
    expected = {
        "reconstruction": difference.square().sum((1, 2, 3)) / 2,
        "generator": -torch.log(torch.sigmoid(told)),
        "real": -torch.log(torch.sigmoid(drawn)),
        "generated": -torch.log(torch.sigmoid(-told)),
    }
    # The deviation of the prior is 1 to the precision of float32.
    torch.testing.assert_close({name: terms[name] for name in expected}, expected, rtol=1e-5, atol=1e-6)


def test_with_a_condition_every_term_depends_on_the_class():
    distiller = AdversarialAutoencoder(autoencoder(conditional=True, num_classes=3)).eval()
    first, second = (distiller.losses({**batch(), "target": (torch.arange(6) + shift) % 3}) for shift in (0, 1))
    assert not [name for name in first if torch.equal(first[name], second[name])]
