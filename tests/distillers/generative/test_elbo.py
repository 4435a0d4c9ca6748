"""Training of graphical models on data."""

from functools import partial

import pytest
import torch

from kdzoo.data import Digits
from kdzoo.distillers import ELBO
from kdzoo.distillers.generative.batch_noise import unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.models import HVAE, VAE
from tests.distillers.generative.cases import at_step, normal_chain


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    return data


def model():
    torch.manual_seed(0)
    return HVAE(in_shape=(1, 8, 8), latents=[3, 2], width=8)


def test_the_terms_are_those_of_the_bound_and_latents_are_warmed_up(digits):
    graph = model()
    distiller = ELBO(graph, warmup=0.5)
    batch = next(iter(distiller.transfer_set(digits).train_dataloader()))
    terms = distiller.losses(batch)
    assert list(terms) == ["z2", "z1", "image"]
    expected = graph.negative_elbo(batch, unpack_noise(batch))
    assert all(torch.equal(terms[name], expected[name]) for name in terms)
    warm = at_step(distiller, 10, 100).losses(batch)
    assert torch.equal(warm["image"], expected["image"])
    assert torch.allclose(warm["z1"], 0.2 * expected["z1"])


def test_free_bits_are_the_least_that_a_latent_costs_in_training_alone(digits):
    graph = model()
    distiller = ELBO(graph, free_bits=1.5)
    batch = next(iter(distiller.transfer_set(digits).train_dataloader()))
    expected = graph.negative_elbo(batch, unpack_noise(batch))
    assert bool((expected["z1"] < 1.5).any())
    terms = distiller.train().losses(batch)
    for name in ("z2", "z1"):
        assert torch.equal(terms[name], expected[name].clamp_min(1.5))
    assert torch.equal(terms["image"], expected["image"])
    assert torch.equal(distiller.eval().losses(batch)["z1"], expected["z1"])


def test_free_bits_keep_a_latent_in_use_that_collapses_without_them(digits, fit):
    """A decoder that starts with no use for its code: the KL alone would switch the code off."""
    divergences = []
    for free_bits in (0.0, 3.0):
        torch.manual_seed(0)
        graph = VAE(in_shape=(1, 8, 8), latent=2, width=16)
        distiller = ELBO(graph, free_bits=free_bits, optimizer=partial(torch.optim.Adam, lr=3e-3))
        data = distiller.transfer_set(digits)
        fit(distiller, data, 6)
        batch = next(iter(data.val_dataloader()))
        with torch.no_grad():
            divergences.append(float(distiller.eval().losses(batch)["z"].mean()))
    assert divergences[0] < 0.1 < 1.5 < divergences[1]


def test_training_lowers_the_bound_and_marks_the_posteriors_as_trained(digits, fit):
    graph = model()
    distiller = ELBO(graph, optimizer=partial(torch.optim.Adam, lr=1e-2))
    data = distiller.transfer_set(digits)
    batch = next(iter(data.val_dataloader()))

    def negative_bound():
        with torch.no_grad():
            return float(sum(value.mean() for value in distiller.losses(batch).values()))

    before = negative_bound()
    assert not graph.posteriors_trained
    fit(distiller, data, 2)
    assert graph.posteriors_trained
    assert negative_bound() < before - 10  # nats of an image


def test_a_model_without_posteriors_raises():
    with pytest.raises(ConfigError, match="latent 'z2' has no posterior"):
        ELBO(normal_chain()).losses({"input": torch.zeros(2, 5)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 1.5}, r"^warmup must be a finite number in \[0, 1\], got 1.5$"),
        ({"free_bits": -0.1}, r"^free_bits must be a finite number >= 0, got -0.1$"),
        ({"seed": -1}, "^seed must be an integer >= 0, got -1$"),
    ],
    ids=["warmup", "free_bits", "seed"],
)
def test_an_invalid_argument_raises(options, message):
    with pytest.raises(ConfigError, match=message):
        ELBO(normal_chain(), **options)
