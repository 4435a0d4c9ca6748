"""What progressive and consistency distillation share: models that fit, the same scale and start, noise, pictures."""

import re

import pytest
import torch

from kdzoo.data import Digits, GaussianMixture
from kdzoo.distillers import ConsistencyDistillation, ProgressiveDistillation
from kdzoo.distillers.generative.few_steps import grid_index
from kdzoo.errors import ConfigError
from tests.distillers.generative.cases import normal_chain
from tests.distillers.generative.few_step_cases import diffusion_model, noisy_batch, prepared

BOTH = pytest.mark.parametrize("method", [ProgressiveDistillation, ConsistencyDistillation])


@BOTH
def test_the_student_begins_with_the_scale_and_the_weights_of_its_teacher(method):
    distiller = prepared(method)
    student, teacher = distiller.student, distiller.teacher
    assert torch.equal(student.denoiser.average.weights, teacher.denoiser.average.weights)
    noise = student.noise(3)
    with student.in_steps(4):
        assert torch.equal(student.eval().samples(noise), teacher.eval().samples(noise))
    own = prepared(method, from_teacher=False)
    assert not torch.equal(own.student.denoiser.average.weights, teacher.denoiser.average.weights)
    assert torch.equal(own.student.sampler.scale, teacher.sampler.scale)


@BOTH
def test_the_transfer_set_has_noise_and_times_that_belong_to_a_sample(method):
    data = GaussianMixture(n_train=40, batch_size=20)
    data.setup()
    loader = prepared(method).transfer_set(data).train_dataloader()
    first, second = (sorted(batch["index"].tolist()) for batch in loader)
    assert sorted(first + second) == list(range(40))
    batch = next(iter(prepared(method, seed=0).transfer_set(data).train_dataloader()))
    other = next(iter(prepared(method, seed=1).transfer_set(data).train_dataloader()))
    assert {"input", "noise.z", "noise.time"} <= batch.keys()
    assert torch.equal(batch["input"], other["input"])
    assert not torch.equal(batch["noise.time"], other["noise.time"])


@BOTH
def test_the_teacher_gets_no_gradient_and_every_weight_of_the_student_does(method):
    distiller = prepared(method, steps=2)
    (loss,) = distiller.losses(noisy_batch([0.1, 0.4, 0.6, 0.9])).values()
    assert loss.shape == (4,)
    loss.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.student.parameters())
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_every_interval_of_the_grid_has_its_index(steps):
    uniform = torch.tensor([0.0, 0.999 / steps, 1 - 2**-24])
    assert grid_index(uniform, steps).tolist() == [1, 1, steps]


def test_images_of_both_are_drawn_over_the_number_of_steps(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "kdzoo.distillers.generative.few_steps.plotting.image_rows", lambda rows, path, **_: drawn.update(rows) or path
    )
    student, teacher = (diffusion_model(n, n, (1, 4, 4)) for n in (1, 6))
    report = ConsistencyDistillation(student, teacher).report_extras
    assert report.figures(tmp_path) == [tmp_path / "steps.png"]
    assert list(drawn) == [f"{role}, {n}" for role in ("teacher", "student") for n in (1, 2, 4, 6)]
    assert all(images.shape == (16, 1, 4, 4) for images in drawn.values())
    assert prepared(ConsistencyDistillation).report_extras.figures(tmp_path) == []  # points


@BOTH
@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((1, 1), "student.steps must be smaller than teacher.steps=1 and divide it, got 1"),
        ((3, 4), "student.steps must be smaller than teacher.steps=4 and divide it, got 3"),
    ],
    ids=["equal", "no_divisor"],
)
def test_steps_that_do_not_fit_raise(method, models, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        method(*map(diffusion_model, models))


@BOTH
def test_models_that_do_not_fit_raise(method):
    teacher = diffusion_model(4)
    with pytest.raises(ConfigError, match=r"^student must be a diffusion model, student=diffusion, got Graph$"):
        method(normal_chain(), teacher)
    with pytest.raises(ConfigError, match=r"^from_teacher must be false where the student's width"):
        method(diffusion_model(1, width=4), teacher)
    assert method(diffusion_model(1, width=4), teacher, from_teacher=False).student.steps == 1
    with pytest.raises(ConfigError, match=r"^student\.conditional must be that of the teacher"):
        method(diffusion_model(1, conditional=True, num_classes=3), teacher, from_teacher=False)
    with pytest.raises(ConfigError, match=r"^student.in_shape must be that of the teacher, \(3,\), got \(2,\)$"):
        method(diffusion_model(1), diffusion_model(4, shape=(3,)), from_teacher=False)


@BOTH
def test_the_figure_has_the_brightness_of_the_data(method):
    """The brightest pixel of the digits is 16 of 255, so that undoing their scale alone would leave them black."""
    data = Digits(labels_per_class=None)
    data.setup()
    distiller = prepared(method)
    distiller.transfer_set(data)
    observed = next(iter(data.test_dataloader()))["input"]
    assert float(distiller.report_extras.view(observed).max()) == pytest.approx(1.0)
