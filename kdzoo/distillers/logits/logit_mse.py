"""Matching of centred logits: the high-temperature limit of logit distillation.

Hinton, Vinyals & Dean 2015, section 2.1. For a temperature much larger than the logits, the softened divergence becomes
half the mean squared difference of the centred logits of student, z ``[..., classes]``, and teacher, v (Ba & Caruana
2014 match logits without centring). With C classes and the label y:

    match = 1 / (2 C) sum_i ((z_i - mean z) - (v_i - mean v))^2    at every valid position
    hard  = -log softmax(z)_y                                      at every labelled position

A constant added to all logits of a position does not change its probabilities; centring removes it from the loss too.
"""

from typing import ClassVar

from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_selection, labels, valid_positions
from kdzoo.core.method_info import MethodInfo
from kdzoo.functional import centred_mse, hard_target_ce


class LogitMSE(Distiller):
    """Match the teacher's logits up to a constant, and the labels where there are any.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Returns logits of the same shape.
        **options: See :class:`kdzoo.Distiller`; the terms are ``match`` and ``hard``.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> LogitMSE(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)).loss_weights
        {'match': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        # The weights of LogitKD, whose limit this is: the two methods then differ in the temperature alone.
        terms={"match": 0.9, "hard": 0.1},
        paper="Hinton, Vinyals & Dean 2015, section 2.1; Ba & Caruana 2014, Do Deep Nets Really Need to be Deep?",
        bibtex="""@inproceedings{ba2014deep,
  title     = {Do Deep Nets Really Need to be Deep?},
  author    = {Ba, Jimmy and Caruana, Rich},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2014},
}""",
        # The losses compare rows of logits; a row may belong to an image, a sequence or a token.
        teacher_kinds=("classifier", "language_model", "masked_lm"),
        student_kinds=("classifier", "language_model", "masked_lm"),
    )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the squared difference of centred logits and the cross entropy, per position."""
        student_logits, teacher_logits = self.student(batch["input"]), self.frozen_teacher.output(batch)
        valid, labelled = valid_positions(batch), labelled_selection(batch)
        return {
            "match": centred_mse(student_logits[valid], teacher_logits[valid]),
            "hard": hard_target_ce(student_logits[labelled], labels(batch)),
        }
