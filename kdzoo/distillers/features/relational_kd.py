"""Distillation of relations between samples, in hidden layers that are found by their module paths.

Park, Kim, Lu & Cho 2019, "Relational Knowledge Distillation", equations 4 to 9: not the hidden layers themselves are
compared but the distances between the samples of a batch, relative to their mean, and the angles that three of them
form. Widths may differ, and no map is learned.

    distance = mean over the pairs of layers of the Huber loss of distances, per sample its mean over the others
    angle    = the same of the cosines of angles, per sample its mean over the pairs of others that it is between
    soft, hard as in logit distillation
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.features.layer_kd import LayerKD
from kdzoo.errors import ConfigError
from kdzoo.functional import angle_relation, distance_relation

RELATIONS = {"distance": distance_relation, "angle": angle_relation}
IN_PIECES = "a relation is between the samples of a batch; of two that lie in different pieces it is not known"


class RelationalKD(LayerKD):
    """Match the distances and angles between samples in hidden layers of student and teacher, and the logits.

    Args:
        student: returns logits [..., classes].
        teacher: returns logits of the same shape.
        layers: module path in the student -> module path in the teacher, at least one pair, as
            ``named_modules`` prints them.
        temperature: T of the soft term, finite and greater than 0.
        micro_batch_size: None; relations need the whole batch at once.
        **options: see :class:`kdzoo.Distiller`; the terms are ``distance``, ``angle``, ``soft`` and ``hard``. Angles
            cost the cube of the batch size; with weight 0 they are not computed.

    Raises:
        ConfigError: an argument is out of its range, or a path names no module.

    Example:
        >>> student = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3))
        >>> RelationalKD(student, teacher, layers={"0": "0"}).loss_weights
        {'distance': 25.0, 'angle': 50.0, 'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = replace(
        LayerKD.info,
        terms={"distance": 25.0, "angle": 50.0, "soft": 0.9, "hard": 0.1},
        paper="Park, Kim, Lu & Cho 2019, Relational Knowledge Distillation, equations 4 to 9",
        bibtex="""@inproceedings{park2019relational,
  title     = {Relational Knowledge Distillation},
  author    = {Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {3967--3976},
  year      = {2019},
}""",
        exempt={**LayerKD.info.exempt, "micro_batches": IN_PIECES, "data_parallel": IN_PIECES},
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        layers: Mapping[str, str],
        temperature: float = 4.0,
        micro_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if micro_batch_size is not None:
            raise ConfigError(f"micro_batch_size must be None, got {micro_batch_size!r}: {IN_PIECES}")
        super().__init__(student, teacher, layers=layers, temperature=temperature, **options)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the differences of the relations, the softened divergence and the cross entropy."""
        student, hidden, teacher, hints = self.run_both(batch)
        gaps = {
            name: torch.stack([relation(mine, theirs) for mine, theirs in zip(hidden, hints, strict=True)]).mean(0)
            for name, relation in RELATIONS.items()
            if self.loss_weights[name]
        }
        return {**gaps, **self.logit_terms(batch, student, teacher)}
