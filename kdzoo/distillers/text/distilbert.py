"""DistilBERT: a shallow transformer that starts from its teacher's layers and follows its outputs and hidden states.

Sanh, Debut, Chaumond & Wolf 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
section 3. With the temperature T, logits z of the student and v of the teacher at a token, last hidden states s and t:

    soft      = T^2 KL(softmax(v / T) || softmax(z / T))    at every token, or at those that were masked
    hard      = -log softmax(z)_y                           at the tokens that were masked
    cosine    = 1 - cos(s, t)                               at every token

A classifier has logits for each text instead, an encoder a vector of each text:

    sentence  = 1 - cos(mean of s, mean of t)

With ``top_k``, ``soft`` is the divergence between the k tokens that are likeliest to the teacher and all others as one.
Where the data are masked once and for all (``data.copies``), a run keeps these few numbers of every token, and the
teacher is not asked again.

Further terms weigh 0 unless asked for: ``hidden`` (squared distance of every layer from the teacher's that it began
as), ``attention`` (divergence of its heads, whose dropout is switched off) and ``embedding`` (squared distance of the
first hidden states). Where outputs are those of texts, terms of hidden layers are means over the tokens of each.
"""

import copy
import math
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from kdzoo.core.abilities import StartsFromLayers
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_positions, labels
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import ReportExtras
from kdzoo.core.validation import choice, flag, integer, positive
from kdzoo.errors import ConfigError
from kdzoo.functional import (
    attention_kl,
    cosine_distance,
    hard_target_ce,
    hint_mse,
    mean_by_text,
    most_likely,
    soft_target_kl,
    top_k_kl,
)
from kdzoo.layer_init import plot_layer_search, select_layers
from kdzoo.text.transformer import TextTransformer, TransformerOutput

KINDS = {"mlm": "masked_lm", "classification": "classifier", "embedding": "encoder"}
OUTPUT_TERMS = {"mlm": ("soft", "hard"), "classification": ("soft", "hard"), "embedding": ("sentence",)}
LAYER_TERMS = ("cosine", "hidden", "attention", "embedding")


class DistilBERT(Distiller):
    """The triple loss, and further terms on hidden layers, between two transformers of text.

    Args:
        student: a :class:`kdzoo.text.transformer.TextTransformer`, such as :class:`kdzoo.models.Layers`.
        teacher: another one of the same task; its hidden states may be wider, then the student's pass through a learned
            linear map before they are compared.
        task: ``mlm``, ``classification`` or ``embedding``.
        temperature: T, finite and greater than 0.
        only_masked: whether ``soft`` compares the masked tokens only; of a masked language model.
        top_k: number of tokens that ``soft`` names, >= 1 and fewer than there are; of a masked language model. None
            compares all.
        **options: see :class:`kdzoo.Distiller`; ``soft`` and ``hard`` are no terms of an encoder, ``sentence`` is one
            of an encoder only.

    Raises:
        ConfigError: an argument is out of its range, or a model is no such transformer.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={
            "soft": 5.0,
            "hard": 2.0,
            "cosine": 1.0,
            "sentence": 1.0,
            "hidden": 0.0,
            "attention": 0.0,
            "embedding": 0.0,
        },
        paper="Sanh, Debut, Chaumond & Wolf 2019, DistilBERT, a distilled version of BERT, section 3",
        bibtex="""@article{sanh2019distilbert,
  title   = {DistilBERT, a distilled version of {BERT}: smaller, faster, cheaper and lighter},
  author  = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv:1910.01108},
  year    = {2019},
}""",
        teacher_kinds=("masked_lm", "classifier", "encoder"),
        student_kinds=("masked_lm", "classifier", "encoder"),
        exempt={
            "compile": "hidden states are read beside the output, which the compiled call of the student does not return"
        },
        contract_settings={
            "data.vocab_size": 400,
            "data.block_size": 12,
            "data.val_size": 0.002,
            "data.test_size": 0.002,
        },
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        task: str = "mlm",
        temperature: float = 2.0,
        only_masked: bool = False,
        top_k: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.task = choice("task", task, tuple(KINDS))
        known = (*OUTPUT_TERMS[self.task], *LAYER_TERMS)
        for name, weight in self.loss_weights.items():
            if weight and weight != self.info.terms[name] and name not in known:
                raise ConfigError(
                    f"loss_weights.{name}={weight:g} is of no use for task={self.task!r}; terms: {', '.join(known)}"
                )
        self.loss_weights = {name: weight * (name in known) for name, weight in self.loss_weights.items()}
        self.temperature = positive("temperature", temperature)
        self.only_masked = flag("only_masked", only_masked)
        if self.only_masked:
            self.label_terms = self.label_terms | {"soft"}
        self.top_k = None if top_k is None else integer("top_k", top_k)
        if self.top_k is not None and self.task != "mlm":
            raise ConfigError(f"top_k={top_k} names tokens of a masked language model; allowed for task={task!r}: None")
        kept, live = {"soft", "cosine"}, {"hidden", "attention", "embedding"}
        is_small = self.top_k is not None and bool(self.weigh & kept) and not self.weigh & live
        # All hidden states of all tokens would take more memory than the teacher takes time.
        self.frozen_teacher.cache_key = (
            {"top_k": self.top_k, "temperature": self.temperature, "terms": sorted(self.weigh & kept)}
            if is_small
            else None
        )
        for role, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, TextTransformer) or model.task != self.task:
                found = f"task={model.task!r}" if isinstance(model, TextTransformer) else type(model).__name__
                raise ConfigError(f"{role} must be a transformer of text of task {task!r}, got {found}")
            if self.top_k is not None and self.top_k >= (size := getattr(model, "vocab_size", math.inf)):
                raise ConfigError(f"top_k must be less than the {size} tokens of the {role}, got {top_k}")
            if "attention" in self.weigh:
                model.enable_attention_outputs()
        self.project = projection(student, teacher)
        if isinstance(student, StartsFromLayers) and student.init_note:
            self.notes["start"] = student.init_note
        self.report_extras = DistilBERTReport(self, copy.deepcopy(student) if self.task == "embedding" else None)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that weigh anything, per token or per text."""
        assert isinstance(self.student, TextTransformer)
        batch = without_padding(batch, self.student.pad_id)
        ours = self.student.read(batch["input"], attentions="attention" in self.weigh)
        theirs = self.frozen_teacher.outputs(batch)
        if (
            self.frozen_teacher.cache_key is not None
        ):  # answers that were kept are as long as the rows that were asked about
            theirs = {name: answer[:, : batch["input"].shape[1]] for name, answer in theirs.items()}
        terms = {**self.output_terms(batch, ours, theirs), **self.layer_terms(batch, ours, theirs)}
        return {name: value for name, value in terms.items() if value is not None}

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Return what the terms compare; of what is kept, the likeliest tokens and the directions of hidden states."""
        assert isinstance(self.teacher, TextTransformer)
        said = self.teacher.read(batch["input"], attentions="attention" in self.weigh)
        found = {"output": said.output, "last": said.hidden[-1]}
        found |= {f"hidden.{j}": hidden for j, hidden in enumerate(said.hidden)}
        found |= {f"attention.{j}": attention for j, attention in enumerate(said.attentions)}
        if self.top_k is not None:
            found["output"], tokens = most_likely(said.output, self.top_k, temperature=self.temperature)
            found["tokens"] = tokens.int()
        if self.frozen_teacher.cache_key is not None:
            found["last"] = normalize(found["last"], dim=-1).half()  # a cosine changes by some 1e-4, either way
            needed = {"output": "soft", "tokens": "soft", "last": "cosine"}
            found = {name: found[name] for name, term in needed.items() if term in self.weigh}
        return found

    @property
    def weigh(self) -> set[str]:
        """The terms that weigh anything."""
        return {name for name, weight in self.loss_weights.items() if weight}

    def output_terms(self, batch: Batch, ours: TransformerOutput, theirs: TeacherOutputs) -> dict[str, Tensor | None]:
        """Return the terms of logits, or of the vectors of texts."""
        if self.task == "embedding":
            return {"sentence": cosine_distance(self.project(ours.output), theirs["output"])}
        labelled = labelled_positions(batch)
        where = labelled if self.only_masked else batch.get("mask")
        soft = None
        if "soft" in self.weigh:
            student, teacher = rows(ours.output, where), rows(theirs["output"], where)
            if self.top_k is None:
                soft = soft_target_kl(student, teacher, temperature=self.temperature)
            else:
                soft = top_k_kl(student, teacher, rows(theirs["tokens"], where).long(), temperature=self.temperature)
        return {"soft": soft, "hard": hard_target_ce(ours.output[labelled], labels(batch))}

    def layer_terms(self, batch: Batch, ours: TransformerOutput, theirs: TeacherOutputs) -> dict[str, Tensor | None]:
        """Return the terms of hidden states and attentions."""
        valid = batch.get("mask", ours.valid)

        def at(i: int, name: str) -> tuple[Tensor, Tensor]:
            """Return the hidden states of all tokens after layer i of the student and those of the teacher."""
            return self.project(rows(ours.hidden[i], valid)), rows(theirs[name], valid).to(ours.output)

        found: dict[str, Tensor] = {}
        if "cosine" in self.weigh:
            found["cosine"] = cosine_distance(*at(-1, "last"))
        if "embedding" in self.weigh:
            found["embedding"] = hint_mse(*at(0, "hidden.0"))
        if self.weigh & {"hidden", "attention"}:
            deep = sum(name.startswith("hidden.") for name in theirs) - 1
            pairs = list(enumerate(self.partners(len(ours.hidden) - 1, deep)))
            if "hidden" in self.weigh:
                each = [hint_mse(*at(i + 1, f"hidden.{j + 1}")) for i, j in pairs]
                found["hidden"] = torch.stack(each).mean(0)
            if "attention" in self.weigh:
                each = [attention_kl(ours.attentions[i], theirs[f"attention.{j}"], valid) for i, j in pairs]
                found["attention"] = torch.stack(each).mean(0)
        if self.task == "mlm":
            return {**found}
        return {name: mean_by_text(values, valid) for name, values in found.items()}

    def partners(self, shallow: int, deep: int) -> tuple[int, ...]:
        """Return the teacher's layer that each layer of the student is compared with: the one that it began as."""
        chosen = self.student.chosen_layers if isinstance(self.student, StartsFromLayers) else None
        return chosen or select_layers("every_other", deep, shallow)


class DistilBERTReport(ReportExtras):
    """The encoder before its training as a baseline, and a figure of the search for layers.

    Args:
        distiller: The method.
        start: The student as it starts; None to leave it out.
    """

    def __init__(self, distiller: DistilBERT, start: nn.Module | None) -> None:
        self.distiller, self.start = distiller, start

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return the student of an encoder as it started: there are no labels to train a control with."""
        return {} if self.start is None else {"start": self.start}

    def figures(self, folder: Path) -> list[Path]:
        """Draw the scores of the layers that were tried, if the student's layers were searched for."""
        student = self.distiller.student
        if not isinstance(student, StartsFromLayers) or student.search is None:
            return []
        return [plot_layer_search(student.search, folder / "layers.png")]


def projection(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Return a learned map from the student's width to the teacher's; nothing where they are equal."""
    assert isinstance(student, TextTransformer)
    assert isinstance(teacher, TextTransformer)
    ours, theirs = student.hidden_size, teacher.hidden_size
    return nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False)


def rows(values: Tensor, where: Tensor | None) -> Tensor:
    """Return the rows [n, d] of values [b, ..., d] where a mask [b, ...] is set; no copy if it is everywhere."""
    if where is None or bool(where.all()):
        return values.flatten(0, -2)
    return values[where]


def without_padding(batch: Batch, pad_id: int | None) -> Batch:
    """Return a batch without the last columns that only pad; a micro-batch of short texts then costs what it holds."""
    tokens = batch["mask"] if "mask" in batch else None if pad_id is None else batch["input"] != pad_id
    if tokens is None:
        return batch
    length = max(int(tokens.any(0).nonzero().max()) + 1 if tokens.any() else 1, 1)
    wide = batch["input"].shape
    return {key: value[:, :length] if value.shape == wide else value for key, value in batch.items()}
