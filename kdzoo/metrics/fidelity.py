"""How closely a student follows its teacher, as metrics that add up over batches and ranks."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from kdzoo.functional import soft_target_kl


class _Mean(Metric):
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.double().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Return the mean over all positions seen."""
        return self.total / self.count


class Agreement(_Mean):
    """Share of positions, in [0, 1], on which student and teacher choose the same class.

    Example:
        >>> agreement = Agreement()
        >>> agreement.update(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> float(agreement.compute())
        0.5
    """

    def update(self, student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> None:
        """Add one batch of logits."""
        self._add(student.argmax(-1) == teacher.argmax(-1))


class TeacherKL(_Mean):
    """Mean KL(teacher || student) in nats at temperature 1.

    Example:
        >>> kl = TeacherKL()
        >>> kl.update(torch.zeros(3, 2), torch.zeros(3, 2))
        >>> float(kl.compute())
        0.0
    """

    def update(self, student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> None:
        """Add one batch of logits."""
        self._add(soft_target_kl(student, teacher, temperature=1.0))
