"""Decoupled knowledge distillation.

Zhao, Cui, Song, Qiu & Liang 2022, "Decoupled Knowledge Distillation", equation 7. The softened divergence is
split into the target class against the rest (``target``) and the distribution among the other classes
(``nontarget``), so that the second no longer vanishes where the teacher is sure. Where a label is missing,
the teacher's most likely class stands in for it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_positions, labels, valid_positions
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import positive
from kdzoo.functional import decoupled_kl, hard_target_ce


class DKD(Distiller):
    """Weigh what the teacher says about the target class and about the other classes separately.

    Args:
        student: returns logits [..., classes].
        teacher: returns logits of the same shape.
        temperature: T, finite and greater than 0.
        **options: see :class:`kdzoo.Distiller`; the terms are ``target``, ``nontarget`` and ``hard``.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> DKD(nn.Linear(4, 3), nn.Linear(4, 3)).loss_weights
        {'target': 1.0, 'nontarget': 8.0, 'hard': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"target": 1.0, "nontarget": 8.0, "hard": 1.0},
        paper="Zhao, Cui, Song, Qiu & Liang 2022, Decoupled Knowledge Distillation, equation 7",
        bibtex="""@inproceedings{zhao2022decoupled,
  title     = {Decoupled Knowledge Distillation},
  author    = {Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2022},
}""",
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the two parts of the softened divergence and the cross entropy, per position."""
        student, teacher = self.student(batch["input"]), self.frozen_teacher.output(batch)
        valid, labelled = valid_positions(batch), labelled_positions(batch)
        target = torch.where(labelled, batch.get("target", labelled), teacher.argmax(-1))
        about_target, about_rest = decoupled_kl(
            student[valid], teacher[valid], target[valid], temperature=self.temperature
        )
        return {
            "target": about_target,
            "nontarget": about_rest,
            "hard": hard_target_ce(student[labelled], labels(batch)),
        }
