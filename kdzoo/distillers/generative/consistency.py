r"""Consistency distillation of diffusion models (Song, Dhariwal, Chen & Sutskever 2023).

A consistency model f maps all points of a trajectory of the teacher's sampler to the end of the trajectory. With the
noisy sample :math:`z_t` of the data at a time t of the teacher's grid, and the point :math:`z_s` that the teacher
reaches from it in one DDIM step, at the next time s of the grid,

.. math:: L = \| f_\theta(z_t, t) - f_{\theta^-}(z_s, s) \|^2

(equation 7 with the squared distance). :math:`\theta^-` is an exponential moving average of the student's weights
(equation 8), without gradient. For a model that predicts the velocity v,

.. math:: f(z, t) = c_{skip}(t)\, z + c_{out}(t)\, v(z, t),
    \qquad c_{skip} = \cos\varphi_t, \quad c_{out} = -\sin\varphi_t,

so that :math:`c_{skip} = 1` and :math:`c_{out} = 0` without noise, as the paper requires (section 3): f is then the
identity. A student of k > 1 steps is consistent within each of k equal parts of the trajectory, and f leads to the end
of the part by a DDIM step (Heek, Hoogeboom & Salimans 2024, Multistep consistency models, section 3.1); for k = 1 this
is the loss above. Its sampler stays deterministic.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.weight_average import WeightAverage
from kdzoo.distillers.generative.few_steps import FewStepDistiller, conditioned, grid_index
from kdzoo.functional import diffusion


class ConsistencyDistillation(FewStepDistiller):
    """Train a student whose predictions agree along the trajectories of its teacher's sampler.

    Args:
        student: A diffusion model.
        teacher: A diffusion model of the same data, whose number of steps is a multiple of the student's.
        target_decay: Decay of the average of the student's weights that the targets are computed with, in [0, 1).
        **options: See :class:`kdzoo.distillers.generative.few_steps.FewStepDistiller`.

    Attributes:
        target: The student's network with the averaged weights.

    Raises:
        ConfigError: If an argument is out of its range, or the models do not fit each other.

    Example:
        >>> from kdzoo.models import Diffusion
        >>> student, teacher = (Diffusion(in_shape=(2,), steps=n) for n in (1, 32))
        >>> distiller = ConsistencyDistillation(student, teacher)
        >>> distiller.losses({"input": torch.zeros(4, 2)})["consistency"].shape
        torch.Size([4])
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"consistency": 1.0},
        paper="Song, Dhariwal, Chen & Sutskever 2023, Consistency models, algorithm 2",
        bibtex="""@inproceedings{song2023consistency,
  title     = {Consistency Models},
  author    = {Song, Yang and Dhariwal, Prafulla and Chen, Mark and Sutskever, Ilya},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
}""",
        teacher_kinds=("graphical_model",),
        student_kinds=("graphical_model",),
        exempt={"compile": "the models are called at noisy samples, not by their forward"},
        contract_settings={"teacher.steps": 4},
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, target_decay: float = 0.95, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.target = WeightAverage(self.student.denoiser.network, validation.probability("target_decay", target_decay))

    def prepare(self, batch: Batch) -> None:
        """Take scale and weights from the teacher; the targets begin with the same weights."""
        super().prepare(batch)
        self.target.restart()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the squared distance of the ends that the student predicts from two points, ``[b]``."""
        sample, noise, uniform, condition = self.noisy(batch)
        parts, steps = self.student.steps, self.teacher.steps
        index = grid_index(uniform, steps)
        time, next_time = index / steps, (index - 1) / steps
        # The start of the part that contains the interval from ``next_time`` to ``time``.
        end_angle = diffusion.cosine_angle(((index - 1) * parts / steps).floor() / parts)
        angle, next_angle = diffusion.cosine_angle(time), diffusion.cosine_angle(next_time)
        z = diffusion.diffuse(sample, noise, angle)
        with torch.no_grad():
            z_next = diffusion.ddim(conditioned(self.teacher.denoiser, condition), z, 1, time, next_time)
            raw = self.target(z_next, next_angle, *condition)
            target_velocity = self.student.denoiser.as_velocity(raw, z_next, next_angle)
            # Where the interval touches the end this is z_next itself, whatever the network returns.
            target = diffusion.rotate(z_next, target_velocity, next_angle - end_angle)
        predicted = diffusion.rotate(z, self.student.denoiser(z, angle, *condition), angle - end_angle)
        return {"consistency": diffusion.per_sample_error(predicted, target)}
