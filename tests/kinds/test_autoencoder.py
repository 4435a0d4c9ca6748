"""The kind of autoencoders: errors, PCA as reference, closeness to the teacher, figures and rejected models."""

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo import kinds, plotting
from kdzoo.data import Digits
from kdzoo.errors import ConfigError
from kdzoo.kinds import AutoencoderKind
from kdzoo.kinds.autoencoder import MAX_VALUES, Components, explained_by_linear_map
from kdzoo.models import MLP, Autoencoder


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None)
    data.setup()
    return data


@pytest.fixture(scope="module")
def kind(digits, tmp_path_factory):
    return AutoencoderKind().bind(digits, tmp_path_factory.mktemp("cache"))


def model(seed=0, **options):
    torch.manual_seed(seed)
    return Autoencoder(**{"in_shape": (1, 8, 8), "code": 5, "width": 12, **options})


def images(data, split):
    return torch.cat([batch["input"] for batch in getattr(data, f"{split}_dataloader")()]).flatten(1).double().numpy()


def test_the_kind_is_recognised(kind):
    assert kinds.kind_of(model()).name == "autoencoder"
    assert kinds.kind_of(MLP(in_shape=(4,), num_classes=2)).name == "classifier"


def test_the_reference_is_pca_written_by_hand(kind, digits):
    train, test = images(digits, "train_eval"), images(digits, "test")
    components = np.linalg.svd(train - train.mean(0), full_matrices=False)[2]
    references = kind.reference_models({"teacher": model(code=7), "student": model()}, digits)
    assert list(references) == ["pca_7", "pca_5"]
    for size, reference in zip((7, 5), references.values(), strict=True):
        metrics = kind.metrics(kind.predict(reference, digits.test_dataloader()))
        residual = test - train.mean(0)
        residual = residual - residual @ components[:size].T @ components[:size]
        assert metrics["reconstruction_error"] == pytest.approx(np.mean(residual**2), rel=1e-4)
        assert metrics["explained_variance"] == pytest.approx(1 - np.mean(residual**2) / np.mean(test.var(0)), rel=1e-4)
        assert metrics["code_size"] == size
        assert metrics["pca_angle"] == pytest.approx(0, abs=1e-3)


def test_the_angle_is_that_of_the_span_of_a_linear_decoder(kind, digits):
    linear = model(network="linear")
    with torch.no_grad():
        linear.decoder.layers[0].weight.copy_(kind.components.directions[:, [0, 1, 2, 3, 40]])
    assert kind.metrics(kind.predict(linear, digits.test_dataloader()))["pca_angle"] == pytest.approx(90)
    assert "pca_angle" not in kind.metrics(kind.predict(model(), digits.test_dataloader()))


def test_images_with_many_values_have_no_components():
    assert Components.of([{"input": torch.zeros(2, MAX_VALUES + 1)}]) is None
    assert Components.of([{"input": torch.randn(9, 4)}]).directions.shape == (4, 4)
    assert AutoencoderKind().reference_models({"student": model()}, None) == {}


def test_fidelity_compares_codes_up_to_a_linear_map_and_reconstructions(kind, digits):
    teacher, student = model(), model(1)
    predictions = [kind.predict(each, digits.test_dataloader()) for each in (teacher, student)]
    same = kind.fidelity(predictions[0], predictions[0])
    assert same["reconstruction_distance"] == 0
    assert same["code_explained"] == pytest.approx(1)
    other = kind.fidelity(predictions[1], predictions[0])
    expected = (predictions[1].reconstructions - predictions[0].reconstructions).square().mean()
    assert other["reconstruction_distance"] == pytest.approx(float(expected), rel=1e-5)
    assert other["code_explained"] < 0.999


def test_a_linear_map_is_fitted_on_one_half_and_measured_on_the_other():
    torch.manual_seed(0)
    codes = torch.randn(200, 4)
    exact = codes @ torch.randn(4, 3) + 5
    assert explained_by_linear_map(codes, exact) == pytest.approx(1)
    noise = torch.randn(200, 3)
    # Half of the variance is noise, of which nothing can be explained.
    share = explained_by_linear_map(codes, codes[:, :3] + noise)
    assert 0.35 < share < 0.65
    assert explained_by_linear_map(torch.zeros(200, 4), noise) <= 0.01
    assert np.isnan(explained_by_linear_map(codes, torch.ones(200, 2)))


def test_figures(kind, digits, tmp_path, monkeypatch):
    drawn = {}
    for name in ("image_rows", "class_scatter"):
        figure = getattr(plotting, name)

        def watched(arrays, *args, figure=figure, **kwargs):
            path = next(value for value in args if hasattr(value, "stem"))
            drawn[path.stem] = arrays
            return figure(arrays, *args, **kwargs)

        monkeypatch.setattr(plotting, name, watched)
    models = {"teacher": model(code=2), "student": model(1, network="conv", code=1), "data": nn.ReLU()}
    predictions = {role: kind.predict(models[role], digits.test_dataloader()) for role in ("teacher", "student")}
    paths = kind.plot_predictions(predictions, tmp_path) + kind.plot_model(models, tmp_path, digits)
    assert [path.name for path in paths] == ["reconstructions.png", "codes.png", "image_interpolations.png"]
    assert all(path.is_file() for path in paths)
    assert list(drawn["reconstructions"]) == ["data", "teacher", "student"]
    assert list(drawn["codes"]) == ["teacher"]
    steps = drawn["image_interpolations"]
    assert list(steps) == ["pixels", "teacher", "student"]
    ends = next(iter(digits.test_dataloader()))["input"][:2]
    np.testing.assert_allclose(steps["pixels"][[0, -1]], ends, atol=1e-6)
    with torch.no_grad():
        reconstructed = models["teacher"](ends).clamp(0, 1)
    np.testing.assert_allclose(steps["teacher"][[0, -1]], reconstructed, atol=1e-6)
    assert kind.plot_model(models, tmp_path, None) == []


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (MLP(in_shape=(1, 8, 8), num_classes=10), "student MLP is not an autoencoder, with encode and decode"),
        (
            Autoencoder(in_shape=(64,)),
            r"student Autoencoder does not fit the data: its reconstructions have shape \(64,\), the data \(1, 8, 8\)",
        ),
        (Autoencoder(in_shape=(9,)), "student Autoencoder cannot take an input of shape"),
    ],
)
def test_a_model_that_does_not_fit_raises(student, message, kind, digits):
    with pytest.raises(ConfigError, match=message):
        kind.check("student", student, next(iter(digits.test_dataloader())), {})
