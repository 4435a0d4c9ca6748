"""Training of autoencoders on data."""

from functools import partial

import torch

from kdzoo.data import Digits
from kdzoo.distillers import Reconstruction
from tests.distillers.generative.test_autoencoder_kd import batch, model


def test_the_term_of_reconstruction_is_the_mean_squared_error_of_each_image():
    student, images = model(), batch()["input"]
    (term,) = Reconstruction(student).losses(batch()).values()
    torch.testing.assert_close(term, (student(images) - images).double().square().mean((1, 2, 3)))


def test_training_halves_the_error_of_an_untrained_model(fit):
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    student = model(width=16, code=8)
    images = next(iter(data.test_dataloader()))["input"]
    before = float((student(images) - images).square().mean())
    fit(Reconstruction(student, optimizer=partial(torch.optim.Adam, lr=1e-2)), data, epochs=3)
    assert float((student(images) - images).square().mean()) < before / 2
