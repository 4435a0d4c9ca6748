"""Autoencoders: sizes, the optimum of the linear one, and what is rejected."""

import re

import pytest
import torch

from kdzoo.core.abilities import EncodesAndDecodes
from kdzoo.data import Digits
from kdzoo.errors import ConfigError
from kdzoo.functional import principal_angles
from kdzoo.models import Autoencoder
from kdzoo.models.autoencoder import principal_autoencoder
from tests.models.packaged import packaged


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "expected", "code_shape"),
    [
        ({"network": "linear"}, (64 * 16 + 16) + (16 * 64 + 64), (16,)),
        ({"width": 5}, (64 * 5 + 5) + (5 * 5 + 5) + (5 * 16 + 16) + (16 * 5 + 5) + (5 * 5 + 5) + (5 * 64 + 64), (16,)),
        (
            {"network": "conv", "width": 4, "code": 1},
            (4 * 9 + 4) + (8 * 4 * 9 + 8) + (8 * 9 + 1) + (8 * 9 + 8) + (8 * 4 * 16 + 4) + (4 * 16 + 1),
            (1, 2, 2),
        ),
    ],
)
def test_parameters_codes_and_reconstructions(options, expected, code_shape):
    model = Autoencoder(in_shape=(1, 8, 8), **options)
    images = torch.rand(3, 1, 8, 8)
    assert count(model) == expected
    assert model.encode(images).shape == (3, *code_shape)
    assert torch.equal(model(images), model.decode(model.encode(images)))
    assert model(images).shape == images.shape
    model(images).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert isinstance(model, EncodesAndDecodes)


def test_the_code_of_a_28_x_28_image_is_a_7_x_7_map():
    model = Autoencoder(in_shape=(1, 28, 28), network="conv", code=1)
    assert model.encode(torch.zeros(2, 1, 28, 28)).shape == (2, 1, 7, 7)


def test_only_a_linear_decoder_has_directions():
    linear = Autoencoder(in_shape=(2, 3), code=4, network="linear")
    assert torch.equal(linear.directions, linear.decoder.layers[0].weight)
    for network in ("mlp", "conv"):
        assert Autoencoder(in_shape=(1, 8, 8), network=network).directions is None


def test_a_principal_autoencoder_projects_on_the_components():
    torch.manual_seed(0)
    images, mean = torch.randn(5, 1, 2, 3), torch.randn(6)
    directions = torch.linalg.qr(torch.randn(6, 2))[0]
    model = principal_autoencoder((1, 2, 3), mean, directions)
    expected = (images.flatten(1) - mean) @ directions @ directions.T + mean
    torch.testing.assert_close(model(images).flatten(1), expected)
    torch.testing.assert_close(model.directions, directions)


def test_the_linear_autoencoder_spans_the_principal_subspace_of_digits():
    """Baldi & Hornik 1989: with squared error the optimum spans the first principal components, here four of them."""
    data = Digits(labels_per_class=None)
    data.setup()
    images = torch.cat([batch["input"] for batch in data.train_eval_dataloader()]).flatten(1).double()
    centred = images - images.mean(0)
    _, values, components = torch.linalg.svd(centred, full_matrices=False)
    torch.manual_seed(0)
    model = Autoencoder(in_shape=(64,), code=4, network="linear").double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=400, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        result = (model(images) - images).square().mean()
        result.backward()
        return result

    optimizer.step(loss)
    least = values[4:].square().sum() / images.numel()
    assert float(loss().detach()) == pytest.approx(float(least), rel=1e-4)
    angles = principal_angles(model.directions, components[:4].T).rad2deg()
    assert float(angles[-1]) < 1
    # The directions themselves are not the components.
    cosines = torch.nn.functional.normalize(model.directions, dim=0).T @ components[:4].T
    assert float(cosines.abs().amax(1).min()) < 0.95


def test_the_configurations_have_the_defaults_of_the_signature():
    node = packaged("student", "autoencoder")
    assert node == {
        "_target_": "kdzoo.models.Autoencoder",
        "code": 16,
        "network": "mlp",
        "width": 16,
        "depth": 2,
    }
    assert packaged("teacher", "autoencoder")["width"] > node["width"]
    for group in ("teacher", "student"):
        assert packaged(group, "autoencoder_conv") | {"width": 0} == node | {"network": "conv", "code": 1, "width": 0}
        assert packaged(group, "autoencoder_linear") == packaged(group, "autoencoder") | {"network": "linear"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": 0}, "code must be an integer >= 1, got 0"),
        ({"network": "rnn"}, "network must be one of linear, mlp, conv, got 'rnn'"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"network": "conv", "depth": 4}, "in_shape must be at least 16 x 16 for 4 halvings, got 8 x 8"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Autoencoder(in_shape=(1, 8, 8), **options)
