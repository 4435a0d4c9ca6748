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

PROBED = 5000
"""Training texts that the linear probe learns from."""
COMPARED = 500
"""Texts whose similarities are compared, each with each."""


@dataclass(frozen=True)
class Predictions:
    """Vectors of the texts of a part and of training texts, and their labels; ``IGNORE`` where there is none.

    Attributes:
        vectors: [n, H].
        target: [n].
        train_vectors: [m, H].
        train_target: [m].
    """

    vectors: Tensor
    target: Tensor
    train_vectors: Tensor
    train_target: Tensor


class EncoderKind(TextKind):
    """Measured by a linear probe of its vectors on the labels; against its teacher by directions and similarities."""

    name: ClassVar[str] = "encoder"
    task: ClassVar[str] = "embedding"
    needs: ClassVar[str] = "a module that returns a vector [b, H] of each text"
    score: ClassVar[str] = "probe_accuracy"
    teacher_free: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.train_batches: list[Batch] = []

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "EncoderKind":  # noqa: ARG002
        """Return this kind with the training texts that the probe learns from."""
        made = copy.copy(self)
        made.train_batches, seen = [], 0
        for raw in data.train_eval_dataloader():
            batch = as_batch(raw)
            made.train_batches.append({key: value[: PROBED - seen] for key, value in batch.items()})
            seen += len(batch["input"])
            if seen >= PROBED:
                break
        return made

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few texts and look at the shape of what it returns."""
        self.check_text(role, model, sizes)
        name = type(model).__name__
        vectors = try_call(role, model, batch["input"])
        if vectors.ndim != 2:
            raise ConfigError(f"{role} {name} is no encoder: it must return vectors [b, H], got {tuple(vectors.shape)}")
        if batch["target"].ndim != 1:
            raise ConfigError(f"{role} {name} needs data with one label per text, such as data=text_classes")

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the vectors of these texts and of the probe's training texts."""
        return Predictions(*vectors_of(model, batches), *vectors_of(model, self.train_batches))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the accuracy of logistic regression on the vectors."""
        labelled, known = predictions.target != IGNORE, predictions.train_target != IGNORE
        return {
            "probe_accuracy": probe_accuracy(
                predictions.train_vectors[known],
                predictions.train_target[known],
                predictions.vectors[labelled],
                predictions.target[labelled],
            )
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the mean cosine with the teacher's vectors, if as wide, and the rank correlation of similarities."""
        ours, theirs = student.vectors[:COMPARED], teacher.vectors[:COMPARED]
        same = ours.shape == theirs.shape
        cosine = {"cosine": float(torch.cosine_similarity(student.vectors, teacher.vectors).mean())} if same else {}
        return {**cosine, "similarity_correlation": similarity_correlation(ours, theirs)}

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the similarities of pairs of texts, the others' against the teacher's."""
        if "teacher" not in predictions:
            return []
        similar: dict[str, Any] = {}
        for role, one in predictions.items():
            vectors = one.vectors[:64]
            rows, columns = torch.triu_indices(len(vectors), len(vectors), 1)
            similar[role] = (vectors @ vectors.T)[rows, columns].numpy()
        taught: dict[str, Any] = {role: one for role, one in similar.items() if role != "teacher"}
        return [plotting.similarity_scatter(similar["teacher"], taught, folder / "similarities.png")]


def vectors_of(model: nn.Module, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Return vectors [n, H] and targets [n] of all texts."""
    model.eval()
    vectors, targets = [], []
    for raw in batches:
        batch = as_batch(raw)
        with torch.no_grad():
            vectors.append(model(batch["input"].to(device_of(model))).cpu().float())
        targets.append(batch["target"])
    return torch.cat(vectors), torch.cat(targets)
