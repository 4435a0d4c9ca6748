"""The diffusion model: its sampler, its loss, the average of its weights, and the exact denoiser as the truth."""

import re

import pytest
import torch

from kdzoo.data import GaussianMixture
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional import diffusion
from kdzoo.functional.gaussian_mixture import exact_velocity
from kdzoo.models import Diffusion
from kdzoo.storage.checkpoint import load_student, save_model
from tests.models.packaged import packaged

SHAPES = [(2,), (1, 8, 8), (3, 5, 6)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def model(shape=(2,), **options):
    return Diffusion(in_shape=shape, **{"steps": 2, "width": 4, **options})


def train(graph, batches, rate=3e-3):
    optimizer = torch.optim.Adam(graph.parameters(), rate)
    for batch in batches:
        loss = graph.negative_elbo({"input": batch}, graph.elbo_noise(len(batch)))["image"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        graph.denoiser.average.after_step()
    return graph


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction", ["velocity", "noise"])
def test_samples_have_the_shape_of_the_data_and_the_loss_reaches_every_parameter(shape, prediction):
    graph = model(shape, prediction=prediction, conditional=True, num_classes=3)
    assert graph(torch.zeros(5, *shape)).shape == (5, *shape)
    batch = {"input": torch.randn(6, *shape), "target": torch.arange(6) % 3}
    terms = graph.negative_elbo(batch, graph.elbo_noise(6))
    assert {name: value.shape for name, value in terms.items()} == {"image": (6,)}
    terms["image"].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in graph.parameters())


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
def test_the_loss_is_the_squared_error_of_the_prediction_in_the_scale_of_the_model(prediction):
    graph = model(prediction=prediction).double()
    data = 3 * torch.randn(8, 2).double() + 5
    graph.calibrate(data)
    noise = {name: value.double() for name, value in graph.elbo_noise(8).items()}
    sample, angle = (data - data.mean()) / data.std(), noise["time"] * diffusion.LARGEST_ANGLE
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    z = cos * sample + sin * noise["z"]
    target = cos * noise["z"] - sin * sample if prediction == "velocity" else noise["z"]
    expected = (graph.denoiser.network(z, angle) - target).square().mean(1)
    torch.testing.assert_close(graph.negative_elbo({"input": data}, noise)["image"], expected)


def test_samples_are_those_of_ddim_in_the_scale_of_the_data():
    graph = model(steps=3).eval()
    graph.calibrate(3 * torch.randn(100, 2) + 5)
    noise = graph.noise(4)
    expected = diffusion.ddim(graph.denoiser, noise["z"], 3) * graph.sampler.scale + graph.sampler.shift
    torch.testing.assert_close(graph.samples(noise), expected)
    with graph.in_steps(1):
        assert graph.steps == 1
        assert not torch.allclose(graph.samples(noise), expected)
    assert graph.steps == 3


def test_the_average_is_used_in_eval_mode_and_exported(tmp_path):
    graph = train(model(), torch.randn(3, 8, 2), rate=0.1)
    noise = graph.noise(4)
    trained, averaged = graph.train().samples(noise), graph.eval().samples(noise)
    assert not torch.allclose(trained, averaged)
    save_model(graph, {"_target_": "kdzoo.models.Diffusion", "in_shape": [2], "steps": 2, "width": 4}, tmp_path)
    torch.testing.assert_close(load_student(tmp_path).eval().samples(noise), averaged)


def test_a_model_begins_with_the_average_of_another():
    teacher, student = train(model(), torch.randn(3, 8, 2)), model()
    student.take_weights(teacher)
    student.take_scale(teacher)
    noise = teacher.noise(4)
    expected = teacher.eval().samples(noise)
    torch.testing.assert_close(student.train().samples(noise), expected)
    torch.testing.assert_close(student.eval().samples(noise), expected)


def test_training_approaches_the_exact_denoiser():
    data = GaussianMixture(deviation=0.3)
    data.setup()
    graph = model(width=32, depth=2, decay=0.98)
    points = data.splits.train.inputs

    def error():
        noise = graph.elbo_noise(2000, generator=torch.Generator().manual_seed(1))
        angle = diffusion.cosine_angle(noise["time"])
        z = diffusion.diffuse(points[:2000], noise["z"], angle)
        with torch.no_grad():
            exact = exact_velocity(z, angle, data.means, data.deviation)
            return float((graph.eval().denoiser(z, angle) - exact).square().mean() / exact.square().mean())

    before = error()
    train(graph.train(), points[torch.randint(len(points), (300, 256))], rate=1e-2)
    assert before > 0.9
    assert error() < 0.2  # of the mean square of the velocities; it falls to 0.1 in 500 steps


def test_noise_and_times_are_a_function_of_the_generator():
    first, second = (model().elbo_noise(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert list(first) == ["z", "time"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["time"].shape == (5,)


def test_a_condition_reaches_the_samples_and_classes_out_of_range_raise():
    graph = model(conditional=True, num_classes=3)
    noise = {name: value.expand(2, -1) for name, value in graph.noise(1).items()}
    first, second = graph.samples(noise, {"label": torch.eye(3)[:2]})
    assert not torch.allclose(first, second)
    with pytest.raises(DataError, match=r"classes must be in 0\.\.2"):
        graph.observed_samples({"input": torch.zeros(1, 2), "target": torch.tensor([3])})


@pytest.mark.parametrize(("group", "steps"), [("teacher", 32), ("student", 1)])
def test_the_packaged_configurations(group, steps):
    node = packaged(group, "diffusion")
    assert node.pop("_target_") == "kdzoo.models.Diffusion"
    assert Diffusion(in_shape=(1, 8, 8), **node).steps == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"prediction": "sample"}, "prediction must be one of velocity, noise, got 'sample'"),
        ({"decay": 1.0}, "decay must be in [0, 1), got 1.0"),
        ({"conditional": True}, "num_classes must be an integer >= 1 where conditional is true, got None"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_bad_arguments_raise(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model(**options)
