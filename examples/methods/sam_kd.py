"""Manual optimization: logit distillation by sharpness-aware minimization (Foret et al. 2021).

With the gradient g at the weights w, the step is taken with the gradient at w + rho g / |g|.
"""

import torch

from kdzoo import MethodInfo
from kdzoo.core.manual import ManualDistiller
from kdzoo.core.validation import positive
from kdzoo.distillers import LogitKD


class SAMKD(ManualDistiller, LogitKD):
    """Distil logits with two gradients per step.

    Args:
        student: Returns logits [batch, classes].
        teacher: Returns logits of the same shape.
        rho: Length of the step to the worst point within radius rho, > 0.
        temperature: T > 0.
    """

    info = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1},
        paper="Foret, Kleiner, Mobahi & Neyshabur 2021, Sharpness-aware minimization for efficiently improving "
        "generalization, algorithm 1",
    )

    def __init__(self, student, teacher, *, rho: float = 0.05, temperature: float = 4.0, **options):
        super().__init__(student, teacher, temperature=temperature, **options)
        self.rho = positive("rho", rho)

    def update(self, batch):
        """Move to the worst point within radius rho, and step from the old weights by the gradient there."""
        optimizer, parameters = self.optimizers(), self.trainable_parameters()
        optimizer.zero_grad()
        self.accumulate_gradient(batch)
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        before = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter in parameters:
                parameter += self.rho / (norm + 1e-12) * parameter.grad  # the addend avoids 0 / 0 at a stationary point
        optimizer.zero_grad()
        self.accumulate_gradient(batch)
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
        optimizer.step()
