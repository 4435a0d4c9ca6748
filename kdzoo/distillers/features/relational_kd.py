"""Distillation of relations between samples, in hidden layers that are found by their module paths.

Park, Kim, Lu & Cho 2019, "Relational Knowledge Distillation", equations 4 to 9. The method does not compare the hidden
layers themselves but the distances between the samples of a batch, divided by their mean, and the angles that three
samples form. The widths may differ, and no projection is learned.

    distance = Huber loss of distances: mean over the pairs of layers, and for each sample over the other samples
    angle    = Huber loss of cosines: mean over the pairs of layers, and for each vertex over the pairs of other samples
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
# Why the batch cannot be divided among micro-batches or ranks.
NEEDS_WHOLE_BATCH = "relations are between samples of one batch; those between micro-batches or ranks would be missing"


class RelationalKD(LayerKD):
    """Match the distances and angles between samples in hidden layers of student and teacher, and the logits.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Returns logits of the same shape.
        layers: Module path in the student -> module path in the teacher, at least one pair, as ``named_modules`` prints
            them.
        temperature: Temperature T of the term ``soft``, finite and > 0.
        micro_batch_size: Must be None, because relations need the whole batch at once.
        **options: See :class:`kdzoo.Distiller`; the terms are ``distance``, ``angle``, ``soft`` and ``hard``. Time and
            memory of ``angle`` grow with the cube of the batch size; a term of weight 0 is not computed.

    Raises:
        ConfigError: An argument is out of its range, or a path is not that of a module.

    Example:
        >>> student = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3))
        >>> RelationalKD(student, teacher, layers={"0": "0"}).loss_weights
        {'distance': 25.0, 'angle': 50.0, 'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = replace(
        LayerKD.info,
        # The weights of the paper's image classification (section 4.2).
        terms={"distance": 25.0, "angle": 50.0, "soft": 0.9, "hard": 0.1},
        paper="Park, Kim, Lu & Cho 2019, Relational Knowledge Distillation, equations 4 to 9",
        bibtex="""@inproceedings{park2019relational,
  title     = {Relational Knowledge Distillation},
  author    = {Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {3967--3976},
  year      = {2019},
}""",
        exempt={**LayerKD.info.exempt, "micro_batches": NEEDS_WHOLE_BATCH, "data_parallel": NEEDS_WHOLE_BATCH},
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
        # The base class would accept it: both terms have one value per sample, but these depend on the other samples.
        if micro_batch_size is not None:
            raise ConfigError(f"micro_batch_size must be None, got {micro_batch_size!r}: {NEEDS_WHOLE_BATCH}")
        super().__init__(student, teacher, layers=layers, temperature=temperature, **options)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the differences of the relations, the softened divergence and the cross entropy."""
        student_logits, student_features, teacher_logits, teacher_features = self.run_both(batch)
        pairs = list(zip(student_features, teacher_features, strict=True))
        differences = {
            name: torch.stack([relation(student, teacher) for student, teacher in pairs]).mean(0)
            for name, relation in RELATIONS.items()
            if self.loss_weights[name]  # angles are expensive
        }
        return {**differences, **self.logit_terms(batch, student_logits, teacher_logits)}
