"""Logit distillation with temperature.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2. With the student's logits z
``[..., classes]``, the teacher's logits v of the same shape, the label y and the temperature T:

    soft = T^2 KL(softmax(v / T) || softmax(z / T))    at every valid position
    hard = -log softmax(z)_y                           at every labelled position

The factor T^2 keeps the size of the soft gradient when T changes (section 2.1).
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_selection, labels, valid_positions
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import positive
from kdzoo.functional import hard_target_ce, soft_target_kl


class LogitKD(Distiller):
    """Match the teacher's softened probabilities, and the labels where there are any.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Returns logits of the same shape.
        temperature: Temperature T of both distributions in the term ``soft``, finite and > 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``soft`` and ``hard``.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> LogitKD(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), temperature=2.0).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        # Together with T = 4 the usual setting on CIFAR-100, as in the code of Zhao et al. 2022. The soft targets carry
        # most of the information; the labels correct the teacher where it is wrong.
        terms={"soft": 0.9, "hard": 0.1},
        paper="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2",
        bibtex="""@article{hinton2015distilling,
  title   = {Distilling the Knowledge in a Neural Network},
  author  = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv:1503.02531},
  year    = {2015},
}""",
        # The losses compare rows of logits; a row may belong to an image, a sequence or a token.
        teacher_kinds=("classifier", "language_model", "masked_lm"),
        student_kinds=("classifier", "language_model", "masked_lm"),
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms ``soft`` and ``hard``; see :meth:`logit_terms`."""
        return self.logit_terms(batch, self.student(batch["input"]), self.frozen_teacher.output(batch))

    def logit_terms(self, batch: Batch, student_logits: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Return the divergence at the temperature and the cross entropy with the labels, from logits.

        Args:
            batch: The batch, which determines the valid and the labelled positions.
            student_logits: Logits ``[..., classes]``.
            teacher_logits: Logits of the same shape, without gradient.

        Returns:
            ``soft``, one value in nats per valid position, and ``hard``, one value in nats per labelled position.
        """
        # Two selections: unlabelled positions still have soft targets, which is why few labels are enough.
        valid, labelled = valid_positions(batch), labelled_selection(batch)
        return {
            "soft": soft_target_kl(student_logits[valid], teacher_logits[valid], temperature=self.temperature),
            "hard": hard_target_ce(student_logits[labelled], labels(batch)),
        }
