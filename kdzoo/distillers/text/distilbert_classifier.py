"""DistilBERT for classifiers of texts: a shallow student matches its fine-tuned teacher's logits and hidden states.

Sanh, Debut, Chaumond & Wolf 2019, section 3, with the logits of a text in place of those of a token. With logits
z (student) and v (teacher) ``[classes]``, the label y, last hidden states s and t ``[width]`` of the tokens, and the
temperature T:

    soft   = T^2 KL(softmax(v / T) || softmax(z / T))    of every text
    hard   = -log softmax(z)_y                           of every labelled text
    cosine = 1 - cos(s, t)                               mean over the tokens of every text
"""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.core.batch import Batch, labelled_selection, labels
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import positive
from kdzoo.distillers.text.transformer_kd import TransformerKD
from kdzoo.functional import hard_target_ce, soft_target_kl
from kdzoo.text.transformer import TransformerOutput


class DistilBERTClassifier(TransformerKD):
    """The triple loss between two classifiers of texts, and further terms on hidden layers.

    Args:
        student: A classifier of texts, such as :class:`kdzoo.models.TruncatedTransformer`.
        teacher: A classifier of texts with the same classes; see
            :class:`kdzoo.distillers.text.transformer_kd.TransformerKD`.
        temperature: T of the soft targets, finite and > 0.
        **options: See :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: An argument is out of its range, or a model is not a classifier of texts.
    """

    task: ClassVar[str] = "classification"
    info: ClassVar[MethodInfo] = replace(
        TransformerKD.info,
        # The weights for masked language models. They were not tuned for classifiers: see the ablation on SST-2 in
        # docs/experiments/distilbert.md, where only ``soft`` makes a difference.
        terms={"soft": 5.0, "hard": 2.0, "cosine": 1.0, "hidden": 0.0, "attention": 0.0, "embedding": 0.0},
        teacher_kinds=("classifier",),
        student_kinds=("classifier",),
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 2.0, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def output_terms(
        self, batch: Batch, student_output: TransformerOutput, teacher_outputs: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return ``soft``, one value per text, and ``hard``, one value per labelled text."""
        logits = student_output.output
        terms: dict[str, Tensor] = {}
        if "soft" in self.weighted_terms:
            terms["soft"] = soft_target_kl(logits, teacher_outputs["output"], temperature=self.temperature)
        terms["hard"] = hard_target_ce(logits[labelled_selection(batch)], labels(batch))
        return terms
