r"""Progressive distillation of diffusion models (Salimans & Ho 2022).

The student of a stage learns to do in one DDIM step what its teacher does in several, for each of its steps. It is the
teacher of the next stage. With the noisy sample :math:`z_t` of the data at a time t of the student's grid, the
teacher's :math:`z_s` at the next time s of this grid, and the difference :math:`\delta` of their angles, the student
predicts

.. math:: \tilde v = \frac{\cos\delta\, z_t - z_s}{\sin\delta},
    \qquad L = \max(\mathrm{SNR}_t, 1)\, \|\tilde x - \hat x(z_t)\|^2
    = \max(\cos^2\varphi_t, \sin^2\varphi_t)\, \|\tilde v - \hat v(z_t)\|^2

(algorithm 2 and equation 9; :mod:`kdzoo.functional.diffusion` has the notation). The teacher's number of steps is
divided by the prime factors of the ratio of the steps, the smallest first: 32 to 16, 8, 4, 2 and 1, as in the paper, or
50 to 25, 5 and 1.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.weight_average import call_with_weights, set_weights
from kdzoo.distillers.generative.few_steps import FewStepDistiller, conditioned, grid_index
from kdzoo.functional import diffusion


class ProgressiveDistillation(FewStepDistiller):
    """Train a student for fewer and fewer steps, each stage with the student of the last one as teacher.

    All stages take equal shares of the training. A stage begins with the averaged weights of the one before.

    Args:
        student: A diffusion model.
        teacher: A diffusion model of the same data, whose number of steps is a multiple of the student's.
        **options: See :class:`kdzoo.distillers.generative.few_steps.FewStepDistiller`.

    Attributes:
        stage: Number of the present stage, from 0; that of the last training step.
        stage_weights: Weights of the student of the last stage, ``[parameters]``; not used in stage 0.

    Raises:
        ConfigError: If an argument is out of its range, or the models do not fit each other.

    Example:
        >>> from kdzoo.models import Diffusion
        >>> student, teacher = (Diffusion(in_shape=(2,), steps=n) for n in (1, 50))
        >>> ProgressiveDistillation(student, teacher).counts
        (50, 25, 5, 1)
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"velocity": 1.0},
        paper="Salimans & Ho 2022, Progressive distillation for fast sampling of diffusion models, algorithm 2",
        bibtex="""@inproceedings{salimans2022progressive,
  title     = {Progressive Distillation for Fast Sampling of Diffusion Models},
  author    = {Salimans, Tim and Ho, Jonathan},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
}""",
        teacher_kinds=("graphical_model",),
        student_kinds=("graphical_model",),
        exempt={"compile": "the models are called at noisy samples, not by their forward"},
        contract_settings={"teacher.steps": 4},
    )
    stage_weights: Tensor

    def __init__(self, student: nn.Module, teacher: nn.Module, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.counts = step_counts(self.teacher.steps, self.student.steps)
        self.stage = 0
        self.register_buffer("stage_weights", self.student.denoiser.average.weights.clone())
        self.notes["steps"] = " -> ".join(map(str, self.counts))

    def on_train_start(self) -> None:
        """Note stages that the training is too short for."""
        stages, steps = len(self.counts) - 1, int(self.trainer.estimated_stepping_batches)
        if steps < stages:
            self.notes["stages"] = f"the training has {steps} steps for {stages} stages, so that some are left out"

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Begin the next stage if it is time for it."""
        step = self.trainer.global_step
        # Before a step and not after one: a checkpoint between the two is resumed at the same step.
        if step and self.stage_at(step) != self.stage_at(step - 1):
            self._begin_stage()
        self.stage = self.stage_at(step)

    def stage_at(self, step: int) -> int:
        """Return the stage of a training step, both counted from 0."""
        stages = len(self.counts) - 1
        return min(int(step * stages / self.trainer.estimated_stepping_batches), stages - 1)

    def _begin_stage(self) -> None:
        """Make the student, with its averaged weights, the teacher of the next stage."""
        denoiser = self.student.denoiser
        self.stage_weights.copy_(denoiser.average.weights)
        set_weights(denoiser.network, denoiser.average.weights)
        denoiser.average.restart()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted squared error of the velocities, ``[b]``."""
        sample, noise, uniform, condition = self.noisy(batch)
        teacher_steps, steps = self.counts[self.stage : self.stage + 2]
        index = grid_index(uniform, steps)
        start, end = index / steps, (index - 1) / steps
        angle, next_angle = diffusion.cosine_angle(start), diffusion.cosine_angle(end)
        z = diffusion.diffuse(sample, noise, angle)
        with torch.no_grad():
            teacher = conditioned(self._stage_teacher, condition)
            reached = diffusion.ddim(teacher, z, teacher_steps // steps, start, end)
            target = diffusion.chord_velocity(z, reached, angle - next_angle)
        predicted = self.student.denoiser(z, angle, *condition)
        weight = diffusion.truncated_snr_weight(angle)
        return {"velocity": weight * diffusion.per_sample_error(predicted, target)}

    def _stage_teacher(self, z: Tensor, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return the velocities that the teacher of this stage predicts."""
        if self.stage == 0:
            return self.teacher.denoiser(z, angle, *condition)
        denoiser = self.student.denoiser
        predicted = call_with_weights(denoiser.network, self.stage_weights, z, angle, *condition)
        return denoiser.as_velocity(predicted, z, angle)


def step_counts(most: int, least: int) -> tuple[int, ...]:
    """Return the numbers of steps from the teacher's to the student's, each divided by the smallest possible prime.

    Args:
        most: The teacher's number of steps, a multiple of ``least``.
        least: The student's number of steps.

    Example:
        >>> step_counts(32, 2), step_counts(50, 1)
        ((32, 16, 8, 4, 2), (50, 25, 5, 1))
    """
    counts = [most]
    while (ratio := counts[-1] // least) > 1:
        factor = next(number for number in range(2, ratio + 1) if ratio % number == 0)
        counts.append(counts[-1] // factor)
    return tuple(counts)
