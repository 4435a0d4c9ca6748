"""Logit distillation with temperature.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2. With the student's
logits z [..., classes], the teacher's logits v and the temperature T:

    soft = T^2 KL(softmax(v / T) || softmax(z / T))    at every valid position
    hard = -log softmax(z)_y                           at every labelled position

The factor T^2 keeps the size of the soft gradient when T changes (section 2.1).
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_positions, labels, valid_positions
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import positive
from kdzoo.functional import hard_target_ce, soft_target_kl


class LogitKD(Distiller):
    """Match the teacher's softened probabilities, and the labels where there are any.

    Args:
        student: returns logits [..., classes].
        teacher: returns logits of the same shape.
        temperature: T, finite and greater than 0.
        **options: see :class:`kdzoo.Distiller`; the terms are ``soft`` and ``hard``.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> import torch
        >>> LogitKD(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), temperature=2.0).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1},
        paper="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2",
        bibtex="""@article{hinton2015distilling,
  title   = {Distilling the Knowledge in a Neural Network},
  author  = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv:1503.02531},
  year    = {2015},
}""",
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the softened divergence and the cross entropy, per position."""
        return self.logit_terms(batch, self.student(batch["input"]), self.frozen_teacher.output(batch))

    def logit_terms(self, batch: Batch, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Return the softened divergence and the cross entropy of given logits, per position."""
        valid, labelled = valid_positions(batch), labelled_positions(batch)
        return {
            "soft": soft_target_kl(student[valid], teacher[valid], temperature=self.temperature),
            "hard": hard_target_ce(student[labelled], labels(batch)),
        }
