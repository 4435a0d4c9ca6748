"""How closely a student follows its teacher, as torchmetrics that add up over batches and ranks."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from kdzoo.functional import soft_target_kl


class _MeanMetric(Metric):
    """Mean of one value per position, over all batches and ranks."""

    # ``update`` does not read the state, so that torchmetrics may compute a batch's value without a second update.
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Sum and count, not a running mean: ranks with batches of different sizes are weighted correctly. In float64,
        # since a float32 sum stops growing after some ten million positions.
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.double().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Return the mean over all positions so far."""
        return self.total / self.count


class Agreement(_MeanMetric):
    """Share of positions, in [0, 1], at which student and teacher predict the same class (top-1 agreement).

    Example:
        >>> agreement = Agreement()
        >>> agreement.update(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> float(agreement.compute())
        0.5
    """

    def update(self, student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> None:
        """Add a batch.

        Args:
            student: Student logits, ``[..., classes]``.
            teacher: Teacher logits, ``[..., classes]``.
        """
        self._add(student.argmax(-1) == teacher.argmax(-1))


class TeacherKL(_MeanMetric):
    """Mean KL(teacher || student) in nats at temperature 1.

    Example:
        >>> kl = TeacherKL()
        >>> kl.update(torch.zeros(3, 2), torch.zeros(3, 2))
        >>> float(kl.compute())
        0.0
    """

    def update(self, student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> None:
        """Add a batch.

        Args:
            student: Student logits, ``[..., classes]``.
            teacher: Teacher logits, ``[..., classes]``.
        """
        self._add(soft_target_kl(student, teacher, temperature=1.0))
