"""Decoupled knowledge distillation.

Zhao, Cui, Song, Qiu & Liang 2022, "Decoupled Knowledge Distillation", equation 7. With the softened probabilities p of
the teacher and q of the student ``[..., classes]``, the label y and the temperature T:

    target    = T^2 KL((p_y, 1 - p_y) || (q_y, 1 - q_y))                   at every valid position
    nontarget = T^2 KL(p_i / (1 - p_y), i != y || q_i / (1 - q_y), i != y) at every valid position
    hard      = -log softmax(z)_y, z the student's logits                  at every labelled position

The softened divergence of logit distillation is ``target + (1 - p_y) nontarget``, so its second part vanishes where the
teacher is certain; here both parts have separate weights.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_positions, labelled_selection, labels, valid_positions
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import positive
from kdzoo.functional import decoupled_kl, hard_target_ce


class DKD(Distiller):
    """Match the teacher's probability of the target class and its distribution over the other classes separately.

    Args:
        student: Returns logits ``[..., classes]`` of at least two classes.
        teacher: Returns logits of the same shape.
        temperature: Temperature T of both distributions, finite and > 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``target``, ``nontarget`` and ``hard``.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> DKD(nn.Linear(4, 3), nn.Linear(4, 3)).loss_weights
        {'target': 1.0, 'nontarget': 8.0, 'hard': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        # The published weights. The loss is about ten times as large as that of logit distillation, and the authors
        # warm it up over 20 epochs. A short training needs a smaller learning rate or smaller weights: five epochs on
        # CIFAR-10 ended at about 40 % accuracy with these, at 60 % with 1, 1, 1 (docs/experiments/cifar10.md).
        terms={"target": 1.0, "nontarget": 8.0, "hard": 1.0},
        paper="Zhao, Cui, Song, Qiu & Liang 2022, Decoupled Knowledge Distillation, equation 7",
        bibtex="""@inproceedings{zhao2022decoupled,
  title     = {Decoupled Knowledge Distillation},
  author    = {Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2022},
}""",
        # The losses compare rows of logits; a row may belong to an image, a sequence or a token.
        teacher_kinds=("classifier", "language_model", "masked_lm"),
        student_kinds=("classifier", "language_model", "masked_lm"),
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the two parts of the softened divergence and the cross entropy, per position."""
        student_logits, teacher_logits = self.student(batch["input"]), self.frozen_teacher.output(batch)
        valid, labelled = valid_positions(batch), labelled_positions(batch)
        # The paper assumes a label everywhere. Without one, the teacher's most likely class takes its place, so that
        # unlabelled positions can be used. ``labelled`` is False everywhere if the batch has no targets at all.
        target = torch.where(labelled, batch.get("target", labelled), teacher_logits.argmax(-1))
        target_term, nontarget_term = decoupled_kl(
            student_logits[valid], teacher_logits[valid], target[valid], temperature=self.temperature
        )
        return {
            "target": target_term,
            "nontarget": nontarget_term,
            "hard": hard_target_ce(student_logits[labelled_selection(batch)], labels(batch)),
        }
