"""Encoders: modules that turn a text into a vector."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.batch import IGNORE, Batch, as_batch
from kdzoo.core.inference import try_call
from kdzoo.errors import ConfigError
from kdzoo.kinds.text_kind import TextKind
from kdzoo.metrics.probe import probe_accuracy, similarity_correlation
from kdzoo.text.language_model import device_of

# Training texts that the linear probe learns from. More make it slower and, with a few hundred features, hardly better.
PROBE_TEXTS = 5000
# Texts whose similarities are compared, each with each: 124,750 pairs.
COMPARED_TEXTS = 500
# Texts in the figure of similarities: 2,016 pairs, of which single points can still be told apart.
PLOTTED_TEXTS = 64


@dataclass(frozen=True)
class Predictions:
    """Vectors and labels of the texts of a split and of training texts; a label is ``IGNORE`` where there is none.

    Attributes:
        vectors: ``[n, width]``, float32.
        target: Classes ``[n]``.
        train_vectors: ``[m, width]``, float32.
        train_target: Classes ``[m]``.
    """

    vectors: Tensor
    target: Tensor
    train_vectors: Tensor
    train_target: Tensor


class EncoderKind(TextKind):
    """Measures encoders by a linear probe on the labels, and by directions and similarities against the teacher."""

    name: ClassVar[str] = "encoder"
    task: ClassVar[str] = "embedding"
    needs: ClassVar[str] = "a module that returns a vector [batch, width] of each text"
    score: ClassVar[str] = "probe_accuracy"
    # Without a teacher there is nothing that the vectors should be.
    teacher_free: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.train_batches: list[Batch] = []

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "EncoderKind":  # noqa: ARG002
        """Return a copy of this kind with the training texts that the probe learns from."""
        bound = copy.copy(self)
        bound.train_batches, n_texts = [], 0
        for raw in data.train_eval_dataloader():
            batch = as_batch(raw)
            bound.train_batches.append({key: value[: PROBE_TEXTS - n_texts] for key, value in batch.items()})
            n_texts += len(batch["input"])
            if n_texts >= PROBE_TEXTS:
                break
        return bound

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few texts and validate the shape of what it returns.

        Raises:
            ConfigError: The model is not an encoder, or the data do not have one label per text.
        """
        self.check_text(role, model, sizes)
        name = type(model).__name__
        vectors = try_call(role, model, batch["input"])
        if not isinstance(vectors, Tensor) or vectors.ndim != 2:
            got = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
            raise ConfigError(f"{role} {name} is not an encoder: it must return vectors [batch, width], got {got}")
        if batch["target"].ndim != 1:
            raise ConfigError(f"{role} {name} needs data with one label per text, such as data=text_classes")

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the vectors of these texts and of the probe's training texts."""
        return Predictions(*compute_vectors(model, batches), *compute_vectors(model, self.train_batches))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return ``probe_accuracy`` in [0, 1], the accuracy of logistic regression on the vectors."""
        labelled, train_labelled = predictions.target != IGNORE, predictions.train_target != IGNORE
        return {
            "probe_accuracy": probe_accuracy(
                predictions.train_vectors[train_labelled],
                predictions.train_target[train_labelled],
                predictions.vectors[labelled],
                predictions.target[labelled],
            )
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return how closely the student's vectors follow the teacher's.

        Returns:
            ``cosine``, the mean cosine of student and teacher vectors, if their widths are equal; and
            ``similarity_correlation``, the rank correlation of the similarities of pairs of texts.
        """
        student_vectors, teacher_vectors = student.vectors[:COMPARED_TEXTS], teacher.vectors[:COMPARED_TEXTS]
        correlation = {"similarity_correlation": similarity_correlation(student_vectors, teacher_vectors)}
        if student_vectors.shape != teacher_vectors.shape:
            return correlation
        return {"cosine": float(torch.cosine_similarity(student.vectors, teacher.vectors).mean()), **correlation}

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the similarities of pairs of texts under the other models against those under the teacher."""
        if "teacher" not in predictions:
            return []
        similarities: dict[str, Any] = {}
        for role, of_role in predictions.items():
            vectors = of_role.vectors[:PLOTTED_TEXTS]
            # Above the diagonal: every pair once, and no text with itself.
            rows, columns = torch.triu_indices(len(vectors), len(vectors), 1)
            similarities[role] = (vectors @ vectors.T)[rows, columns].numpy()
        of_teacher = similarities.pop("teacher")
        return [plotting.similarity_scatter(of_teacher, similarities, folder / "similarities.png")]


def compute_vectors(model: nn.Module, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Return the vectors ``[n, width]`` and the targets ``[n]`` of all texts; the model is put into eval mode."""
    model.eval()
    vectors, targets = [], []
    for raw in batches:
        batch = as_batch(raw)
        with torch.no_grad():
            vectors.append(model(batch["input"].to(device_of(model))).cpu().float())
        targets.append(batch["target"])
    return torch.cat(vectors), torch.cat(targets)
