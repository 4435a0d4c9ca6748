"""The base of adversarial methods with an encoder."""

import pytest
import torch

from kdzoo.distillers import VAEGAN, AdversarialAutoencoder
from kdzoo.distillers.generative.batch_noise import unpack_noise
from tests.distillers.generative.test_adversarial import gan

METHODS = [(VAEGAN, "image"), (AdversarialAutoencoder, "code")]


@pytest.mark.parametrize(("method", "discriminated"), METHODS)
def test_codes_have_noise_of_their_own(method, discriminated):
    distiller = method(gan(encoder=True, discriminated=discriminated))
    drawn = distiller.draw_noise(4, torch.Generator().manual_seed(0))
    prior, encoded = unpack_noise(drawn)["z"], unpack_noise(drawn, "encoded_")["z"]
    assert prior.shape == encoded.shape == (4, 3)
    assert not torch.equal(prior, encoded)
    batch = {"input": torch.rand(4, 1, 8, 8), **drawn}
    trace = distiller.encode(batch)
    expected = trace.posteriors["z"].mean + trace.posteriors["z"].stddev * encoded
    torch.testing.assert_close(trace.values["z"], expected)


@pytest.mark.parametrize(("method", "discriminated"), METHODS)
def test_the_student_knows_that_its_encoder_is_trained(method, discriminated):
    distiller = method(gan(encoder=True, discriminated=discriminated))
    assert not distiller.student.posteriors_trained
    distiller.on_train_start()
    assert distiller.student.posteriors_trained
