"""DistilBERT for encoders of texts: a shallow student matches the directions of its teacher's vectors, without labels.

The cosine term of Sanh, Debut, Chaumond & Wolf 2019, section 3, for vectors of texts as well as for tokens. With last
hidden states s (student) and t (teacher) ``[width]`` of the tokens:

    sentence = 1 - cos(mean of s, mean of t)    of every text
    cosine   = 1 - cos(s, t)                    mean over the tokens of every text
"""

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.text.transformer_kd import TransformerKD, TransformerKDReport
from kdzoo.functional import cosine_distance
from kdzoo.text.transformer import TransformerOutput


class DistilBERTEncoder(TransformerKD):
    """Directions of the vectors of texts and of the hidden states of tokens, and further terms on hidden layers.

    Args:
        student: An encoder, such as :class:`kdzoo.models.TruncatedTransformer`.
        teacher: Another one; see :class:`kdzoo.distillers.text.transformer_kd.TransformerKD`.
        **options: See :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: An argument is out of its range, or a model is not an encoder of texts.
    """

    task: ClassVar[str] = "embedding"
    info: ClassVar[MethodInfo] = replace(
        TransformerKD.info,
        # Two cosines with the same scale, so that there is no reason for unequal weights.
        terms={"sentence": 1.0, "cosine": 1.0, "hidden": 0.0, "attention": 0.0, "embedding": 0.0},
        teacher_kinds=("encoder",),
        student_kinds=("encoder",),
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.report_extras = DistilBERTEncoderReport(student)

    def output_terms(
        self,
        batch: Batch,  # noqa: ARG002 - there are no labels
        student_output: TransformerOutput,
        teacher_outputs: TeacherOutputs,
    ) -> dict[str, Tensor]:
        """Return ``sentence``, one value per text."""
        return {"sentence": cosine_distance(self.project(student_output.output), teacher_outputs["output"])}


class DistilBERTEncoderReport(TransformerKDReport):
    """The student before its training as a baseline, and a figure of the search for layers.

    Args:
        student: The student, before its training.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__(student)
        self.start = copy.deepcopy(student)

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return the student as it started: there are no labels to train a control with."""
        return {"start": self.start}
