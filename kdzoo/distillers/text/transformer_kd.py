"""Base of the methods that distil a text transformer: terms on hidden layers, and a learned map between widths.

With last hidden states s (student) and t (teacher) of a token, ``[width]``, the term of Sanh et al. 2019, section 3, is

    cosine = 1 - cos(s, t)

Three further terms have the weight 0 by default. ``hidden`` is the squared distance of every student layer from the
teacher layer that it started from, ``attention`` the divergence of the attention distributions of these layers, and
``embedding`` the squared distance of the embeddings, the input of the first layer.

A method adds its terms on the output: of every token (masked language models) or of every text.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import StartsFromLayers
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples, valid_positions
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import ReportExtras
from kdzoo.distillers.text.positions import select_positions, text_of_tokens, with_mask, without_padding
from kdzoo.errors import ConfigError
from kdzoo.functional import attention_kl, cosine_distance, hint_mse, mean_by_text
from kdzoo.layer_init import plot_layer_search, select_layers
from kdzoo.text.transformer import TextTransformer, TransformerOutput


class TransformerKD(Distiller):
    """Base of the methods that compare two text transformers of one task.

    A subclass declares ``task`` and, in ``info``, its terms; it writes ``output_terms``.

    Args:
        student: A :class:`kdzoo.text.transformer.TextTransformer`, such as :class:`kdzoo.models.TruncatedTransformer`.
        teacher: Another one of the same task. Its hidden states may have another width: the student's then pass through
            a learned linear map before they are compared.
        **options: See :class:`kdzoo.Distiller`.

    Attributes:
        project: The map from the student's width to the teacher's; the identity if they are equal.

    Raises:
        ConfigError: An argument is out of its range, or a model is not a text transformer of the task.
    """

    task: ClassVar[str]
    """Task of teacher and student: ``mlm``, ``classification`` or ``embedding``."""

    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Sanh, Debut, Chaumond & Wolf 2019, DistilBERT, a distilled version of BERT, section 3",
        bibtex="""@article{sanh2019distilbert,
  title   = {DistilBERT, a distilled version of {BERT}: smaller, faster, cheaper and lighter},
  author  = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv:1910.01108},
  year    = {2019},
}""",
        exempt={"compile": "hidden states are read as well, which the compiled call of the student does not return"},
        # Short texts of few different tokens, which make the contract checks quick.
        contract_settings={"data.vocab_size": 400, "data.max_length": 12},
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        for role, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, TextTransformer) or model.task != self.task:
                got = f"task={model.task!r}" if isinstance(model, TextTransformer) else type(model).__name__
                raise ConfigError(f"{role} must be a text transformer of task {self.task!r}, got {got}")
            if "attention" in self.weighted_terms:
                model.enable_attention_outputs()
        # The hidden states of all layers of all texts would take more memory than the teacher takes time.
        self.frozen_teacher.cache_key = None
        self.project = projection(student, teacher)
        if isinstance(student, StartsFromLayers) and student.init_note:
            self.notes["start"] = student.init_note
        self.report_extras = TransformerKDReport(student)

    @property
    def weighted_terms(self) -> set[str]:
        """Names of the terms with a weight above 0; others are not computed if that takes time."""
        return {name for name, weight in self.loss_weights.items() if weight}

    @abstractmethod
    def output_terms(
        self, batch: Batch, student_output: TransformerOutput, teacher_outputs: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return the terms on logits or on vectors of texts, per position.

        Args:
            batch: The batch without trailing padding.
            student_output: The student's output and hidden states.
            teacher_outputs: What ``teacher_outputs`` returned.
        """

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms on the output, then those on hidden layers, per token or per text."""
        assert isinstance(self.student, TextTransformer)
        batch = without_padding(batch, self.student.pad_id)
        student_output = self.student.read(batch["input"], attentions="attention" in self.weighted_terms)
        teacher_outputs = self.frozen_teacher.outputs(batch)
        if self.frozen_teacher.cache_key is not None:
            # Cached outputs are as long as the texts were with their padding.
            length = batch["input"].shape[1]
            teacher_outputs = {name: output[:, :length] for name, output in teacher_outputs.items()}
        return {
            **self.output_terms(batch, student_output, teacher_outputs),
            **self.layer_terms(batch, student_output, teacher_outputs),
        }

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Return the teacher's ``output``, ``last`` hidden states, ``hidden.<j>`` and ``attention.<j>``, j from 0."""
        assert isinstance(self.teacher, TextTransformer)
        result = self.teacher.read(batch["input"], attentions="attention" in self.weighted_terms)
        outputs = {"output": result.output, "last": result.hidden[-1]}
        outputs |= {f"hidden.{j}": hidden for j, hidden in enumerate(result.hidden)}  # hidden.0 are the embeddings
        return outputs | {f"attention.{j}": attention for j, attention in enumerate(result.attentions)}

    def layer_terms(
        self, batch: Batch, student_output: TransformerOutput, teacher_outputs: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return the weighted terms on hidden states and attentions: per token for the task ``mlm``, else per text."""
        assert isinstance(self.student, TextTransformer)
        positions = valid_positions(with_mask(batch, self.student.pad_id))
        weighted, depth = self.weighted_terms, len(student_output.hidden) - 1

        def states(layer: int, name: str) -> tuple[Tensor, Tensor]:
            """Return the student's states after a layer and the teacher's of that name, ``[tokens, teacher width]``."""
            student_states = self.project(select_positions(student_output.hidden[layer], positions))
            # Cached states have half precision; the losses compare tensors of one type.
            return student_states, select_positions(teacher_outputs[name], positions).to(student_output.output)

        terms: dict[str, Tensor] = {}
        if "cosine" in weighted:
            terms["cosine"] = cosine_distance(*states(-1, "last"))
        if "embedding" in weighted:
            terms["embedding"] = hint_mse(*states(0, "hidden.0"))
        if weighted & {"hidden", "attention"}:
            teacher_depth = sum(name.startswith("hidden.") for name in teacher_outputs) - 1
            pairs = list(enumerate(self.matched_layers(depth, teacher_depth)))
            if "hidden" in weighted:
                per_layer = [hint_mse(*states(i + 1, f"hidden.{j + 1}")) for i, j in pairs]
                terms["hidden"] = torch.stack(per_layer).mean(0)
            if "attention" in weighted:
                attentions = student_output.attentions
                per_layer = [attention_kl(attentions[i], teacher_outputs[f"attention.{j}"]) for i, j in pairs]
                terms["attention"] = select_positions(torch.stack(per_layer).mean(0)[..., None], positions)[:, 0]
        if self.task == "mlm":
            return terms
        # The labels, and so the positions that a batch is divided by, are those of whole texts.
        texts = text_of_tokens(batch, positions)
        return {name: mean_by_text(values, texts, n_samples(batch)) for name, values in terms.items()}

    def matched_layers(self, student_depth: int, teacher_depth: int) -> tuple[int, ...]:
        """Return the teacher layer that each student layer is compared with: the one that it started from.

        A student that did not start from layers of its teacher is compared with evenly spaced ones.
        """
        chosen = self.student.chosen_layers if isinstance(self.student, StartsFromLayers) else None
        return chosen or select_layers("every_other", teacher_depth, student_depth)


class TransformerKDReport(ReportExtras):
    """A figure of the search for layers.

    Args:
        student: The student.
    """

    def __init__(self, student: nn.Module) -> None:
        self.student = student

    def figures(self, folder: Path) -> list[Path]:
        """Draw the scores of the layers that were tried, if the student's layers were searched for."""
        if not isinstance(self.student, StartsFromLayers) or self.student.search is None:
            return []
        return [plot_layer_search(self.student.search, folder / "layers.png")]


def projection(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Return a learned linear map from the student's width to the teacher's; the identity if they are equal."""
    assert isinstance(student, TextTransformer)
    assert isinstance(teacher, TextTransformer)
    if student.hidden_size == teacher.hidden_size:
        return nn.Identity()
    # Without a bias, so that a constant part of the teacher's states has to come from the student's.
    return nn.Linear(student.hidden_size, teacher.hidden_size, bias=False)
