"""Classifiers: modules that turn an input into one logit per class."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from kdzoo import plotting
from kdzoo.batch import Batch, as_batch, labelled_positions, labels
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce
from kdzoo.kinds.kind import Kind
from kdzoo.metrics import Agreement, TeacherKL

CALIBRATION_BINS = 15


@runtime_checkable
class ClassifierModel(Protocol):
    """A module that returns logits [..., classes], one row for each position of the target."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits of ``inputs`` [b, ...]."""


@dataclass(frozen=True)
class Predictions:
    """Logits [n, classes] and targets [n] of all labelled positions, in the order of the data."""

    logits: Tensor
    target: Tensor

    @property
    def predicted(self) -> Tensor:
        """The most likely class of each position [n]."""
        return self.logits.argmax(1)


class Classifier(Kind):
    """Measured by accuracy, calibration and, against its teacher, by agreement and divergence."""

    name: ClassVar[str] = "classifier"
    needs: ClassVar[str] = "a module that returns logits [..., classes]"
    score: ClassVar[str] = "accuracy"
    untaught: ClassVar[str] = "kdzoo.distillers.Supervised"

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few samples and compare the shape of what it returns with the data."""
        name, shape = type(model).__name__, tuple(batch["input"].shape)
        was_training = model.training
        try:
            with torch.no_grad():
                logits = model.eval()(batch["input"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{role} {name} cannot take an input of shape {shape}: {reason}") from error
        finally:
            model.train(was_training)
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            got = type(logits).__name__ if not isinstance(logits, Tensor) else str(logits.dtype)
            raise ConfigError(f"{role} {name} is no classifier: it must return a tensor of logits, got {got}")
        positions = tuple(batch["target"].shape) if "target" in batch else shape[:1]
        expected = (*positions, sizes["num_classes"])
        if tuple(logits.shape) != expected:
            raise ConfigError(
                f"{role} {name} does not fit the data: its logits have shape {tuple(logits.shape)}, "
                f"the data need {expected} (num_classes={sizes['num_classes']})"
            )

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return logits and targets of all labelled positions."""
        model.eval()
        device = next(iter(model.parameters()), torch.empty(0)).device
        logits, target = [], []
        for raw in batches:
            batch = as_batch(raw)
            with torch.no_grad():
                output = model(batch["input"].to(device)).cpu()
            logits.append(output[labelled_positions(batch)].float())
            target.append(labels(batch))
        return Predictions(torch.cat(logits), torch.cat(target))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return accuracy, errors, cross entropy in nats and the expected calibration error (15 bins)."""
        logits, target = predictions.logits, predictions.target
        errors = int((predictions.predicted != target).sum())
        return {
            "accuracy": 1 - errors / len(target),
            "errors": errors,
            "cross_entropy": float(hard_target_ce(logits, target).mean()),
            "calibration_error": float(
                multiclass_calibration_error(logits.softmax(1), target, logits.shape[1], n_bins=CALIBRATION_BINS)
            ),
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of equal decisions and the mean KL(teacher || student) in nats."""
        return {
            "agreement": float(Agreement()(student.logits, teacher.logits)),
            "kl": float(TeacherKL()(student.logits, teacher.logits)),
        }

    def figures(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw a reliability diagram and the recall of every class."""
        confidence = {}
        recall = {}
        for name, one in predictions.items():
            probability, predicted = one.logits.softmax(1).max(1)
            confidence[name] = (probability.numpy(), (predicted == one.target).numpy())
            recall[name] = class_recall(one).numpy()
        return [
            plotting.reliability_diagram(confidence, folder / "reliability.png", bins=CALIBRATION_BINS),
            plotting.recall_by_class(recall, folder / "class_recall.png"),
        ]


def class_recall(predictions: Predictions) -> Tensor:
    """Return the share of each class that is recognised [classes]; NaN for classes without samples."""
    classes = predictions.logits.shape[1]
    right = predictions.target[predictions.predicted == predictions.target]
    return torch.bincount(right, minlength=classes) / torch.bincount(predictions.target, minlength=classes)
