"""The base of methods that distil a diffusion model into one that samples in fewer steps."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.inference import inference
from kdzoo.core.report_extras import ReportExtras
from kdzoo.data.derived.noise import NoisyData
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.functional.diffusion import Velocity
from kdzoo.graphical_models.sample_plots import View, pixel_view, view_of
from kdzoo.models import Diffusion

COLUMNS = 16
"""Samples of each row in the figure of images."""


class FewStepDistiller(Distiller):
    """Base of methods whose student samples in fewer steps than its teacher.

    Student and teacher read the same noisy samples: the data with the noise and the time that a sample has in an
    epoch. The student scales data as its teacher does.

    Args:
        student: A diffusion model.
        teacher: A diffusion model of the same data, whose number of steps is a multiple of the student's.
        from_teacher: Whether the student begins with the weights of its teacher, which needs the same network.
        seed: Seed of the noise and the times, >= 0.
        **options: See :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: If an argument is out of its range, or the models do not fit each other.
    """

    student: Diffusion
    teacher: Diffusion

    def __init__(
        self, student: nn.Module, teacher: nn.Module, *, from_teacher: bool = True, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(student, teacher, **options)
        self.from_teacher = validation.flag("from_teacher", from_teacher)
        self.seed = validation.integer("seed", seed, 0)
        for role, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, Diffusion):
                raise ConfigError(f"{role} must be a diffusion model, {role}=diffusion, got {type(model).__name__}")
        _check_models(self.student, self.teacher, self.from_teacher)
        self.report_extras: StepsReport = StepsReport(self)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data with noise and times."""

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            return pack_noise(self.student.elbo_noise(n, generator=generator))

        self.report_extras.view = view_of(data)
        return NoisyData(data, draw, noise_only=False, seed=self.seed)  # type: ignore[arg-type]

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002
        """Take the scale of the data, and the weights if wanted, from the teacher, which is trained by now."""
        self.student.take_scale(self.teacher)
        if self.from_teacher:
            self.student.take_weights(self.teacher)

    def noisy(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Return samples, their noise, uniform numbers ``[b]`` that determine the times, and the condition."""
        sample, condition = self.student.observed_samples(batch)
        noise = unpack_noise(batch) or self.student.elbo_noise(n_samples(batch))
        return sample, noise["z"].to(sample), noise["time"].to(sample), condition


def grid_index(uniform: Tensor, steps: int) -> Tensor:
    """Return positions 1 to ``steps`` of a grid of times, ``[b]``, for uniform numbers in [0, 1) ``[b]``."""
    # A number just below 1 may be rounded up by the product.
    return (uniform * steps).floor().clamp(max=steps - 1) + 1


def conditioned(predict: Callable[..., Tensor], condition: list[Tensor]) -> Velocity:
    """Return a prediction of noisy samples and angles alone, given a condition."""
    return lambda z, angle: predict(z, angle, *condition)


def _check_models(student: Diffusion, teacher: Diffusion, from_teacher: bool) -> None:
    """Reject models of other data or networks, and numbers of steps that do not fit."""
    shape, expected = (model.targets()["image"].family.shape for model in (student, teacher))
    if shape != expected:
        raise ConfigError(f"student.in_shape must be that of the teacher, {expected}, got {shape}")
    given, needed = ([node.family.shape for node in model.inputs().values()] for model in (student, teacher))
    if given != needed:
        raise ConfigError(f"student.conditional must be that of the teacher, which reads {needed}, got {given}")
    if teacher.steps % student.steps or teacher.steps == student.steps:
        raise ConfigError(
            f"student.steps must be smaller than teacher.steps={teacher.steps} and divide it, got {student.steps}"
        )
    if from_teacher and _network(student) != _network(teacher):
        raise ConfigError(
            "from_teacher must be false where the student's width, depth or prediction is not the teacher's, got true"
        )


def _network(model: Diffusion) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return what two models must have in common to share weights: the prediction, and shapes by parameter."""
    denoiser = model.denoiser
    return denoiser.prediction, {name: tuple(value.shape) for name, value in denoiser.network.named_parameters()}


class StepsReport(ReportExtras):
    """Adds a figure: images of teacher and student in 1, 2, 4, ... steps, with the same noise in each column.

    Args:
        distiller: The method.

    Attributes:
        view: Turns samples into pixels in [0, 1]; that of data whose values are pixels, until the data are known.
    """

    def __init__(self, distiller: FewStepDistiller) -> None:
        self.distiller = distiller
        self.view: View = pixel_view(None)

    def figures(self, folder: Path) -> list[Path]:
        """Draw the images; nothing for samples that are not images."""
        student, teacher = self.distiller.student, self.distiller.teacher
        generator = torch.Generator().manual_seed(0)
        noise = student.noise(COLUMNS, generator=generator)
        inputs = student.draw_inputs(COLUMNS, generator=generator)
        if next(iter(noise.values())).ndim != 4:
            return []
        counts = [*takewhile(lambda n: n < teacher.steps, (2**i for i in range(teacher.steps))), teacher.steps]
        rows = {}
        for role, model in (("teacher", teacher), ("student", student)):
            for steps in counts:
                with inference(model), model.in_steps(steps):
                    given = {name: value.to(model.like) for name, value in inputs.items()}
                    samples = model.samples(noise, given).float().cpu()
                rows[f"{role}, {steps}"] = self.view(samples).numpy()
        caption = (
            f"Images by number of steps; a column has the same noise. The student is trained for {student.steps} "
            f"step{'s' * (student.steps > 1)}."
        )
        path = folder / "steps.png"
        return [plotting.image_rows(rows, path, title="Samples over the number of steps", caption=caption)]
