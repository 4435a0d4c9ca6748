"""Classifiers: modules that turn an input into one logit per class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from kdzoo import plotting
from kdzoo.core.batch import Batch, as_batch, labelled_positions, labelled_samples, labels
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce
from kdzoo.kinds.logits import check_logits
from kdzoo.kinds.text_kind import TextKind
from kdzoo.metrics import Agreement, TeacherKL
from kdzoo.tensor_networks.mps_report_figures import open_chains, plot_chains

CALIBRATION_BINS = 15
MEASURED_INPUTS, EXPLAINED_CLASSES = 300, 10
"""Training inputs whose marginal distributions plot_model are drawn under, and most classes with an example."""


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


class ClassifierKind(TextKind):
    """Measured by accuracy, calibration and, against its teacher, by agreement and divergence."""

    name: ClassVar[str] = "classifier"
    task: ClassVar[str] = "classification"
    needs: ClassVar[str] = "a module that returns logits [..., classes]"
    score: ClassVar[str] = "accuracy"
    teacher_free: ClassVar[str] = "kdzoo.distillers.Supervised"

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few samples and compare the shape of what it returns with the data."""
        if "num_classes" not in sizes:
            raise ConfigError(f"{role} {type(model).__name__} needs data of classes, which have num_classes")
        self.check_text(role, model, sizes)
        check_logits(role, model, batch, noun=self.name, size=("num_classes", sizes["num_classes"]))

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

    def unseen(self, predictions: Predictions, validation: Predictions, classes: Sequence[int]) -> dict[str, float]:
        """Return the recall of the classes that training left out, before and after one shift of their logits.

        A student that never saw a class has learnt a bias for it that is much too low (Hinton, Vinyals & Dean
        2015, section 3). ``unseen_shift`` is the correction that is best for ``validation``.
        """
        shift = best_shift(validation.logits, validation.target, classes)
        shifted = Predictions(shift_classes(predictions.logits, classes, shift), predictions.target)
        return {
            "unseen_recall": recall_of(predictions, classes),
            "unseen_recall_shifted": recall_of(shifted, classes),
            "errors_shifted": int((shifted.predicted != shifted.target).sum()),
            "unseen_shift": shift,
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of equal decisions and the mean KL(teacher || student) in nats."""
        return {
            "agreement": float(Agreement()(student.logits, teacher.logits)),
            "kl": float(TeacherKL()(student.logits, teacher.logits)),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
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

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw what is in models that are matrix product states, beside the teacher's saliency."""
        if data is None or not open_chains(models):
            return []
        train_inputs = inputs_of(data.train_eval_dataloader(), MEASURED_INPUTS)
        examples, classes = one_of_each_class(data.test_dataloader())
        explained = ("teacher",) if "teacher" in models else ()
        return plot_chains(models, train_inputs, examples, classes, folder, saliency=explained)


def inputs_of(batches: Iterable[Any], count: int) -> Tensor:
    """Return the first inputs of some batches, at most ``count`` [n, ...]."""
    found: list[Tensor] = []
    for batch in batches:
        found.append(as_batch(batch)["input"])
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]


def one_of_each_class(batches: Iterable[Any]) -> tuple[Tensor, list[int]]:
    """Return the first labelled input of each of the first ten classes in a batch [n, ...], and these classes."""
    inputs, target = labelled_samples([next(iter(batches))])
    classes = target.unique().tolist()[:EXPLAINED_CLASSES]
    return inputs[[int((target == one).nonzero()[0]) for one in classes]], classes


def class_recall(predictions: Predictions) -> Tensor:
    """Return the share of each class that is recognised [classes]; NaN for classes without samples."""
    classes = predictions.logits.shape[1]
    right = predictions.target[predictions.predicted == predictions.target]
    return torch.bincount(right, minlength=classes) / torch.bincount(predictions.target, minlength=classes)


def recall_of(predictions: Predictions, classes: Sequence[int]) -> float:
    """Return the share of the samples of ``classes`` that are recognised; NaN if there are none."""
    theirs = torch.isin(predictions.target, torch.tensor(classes))
    return float((predictions.predicted == predictions.target)[theirs].double().mean())


def shift_classes(logits: Tensor, classes: Sequence[int], shift: float) -> Tensor:
    """Return ``logits`` [n, c] with ``shift`` added to those of ``classes``."""
    shifted = logits.clone()
    shifted[:, list(classes)] += shift
    return shifted


def best_shift(logits: Tensor, target: Tensor, classes: Sequence[int]) -> float:
    """Return the number that makes the decisions most accurate when it is added to the logits of ``classes``.

    Sample i goes to one of ``classes`` when the shift exceeds its threshold, by which the best logit of the
    other classes leads. Between two thresholds nothing changes: the answer is the middle of the widest
    of the intervals with the most right decisions, 1 beyond the outermost threshold where it has no end.

    Args:
        logits: [n, c], finite, n >= 1.
        target: [n], in 0..c-1.
        classes: at least one class, and not all.
    """
    logits = logits.double()
    theirs = torch.zeros(logits.shape[1], dtype=torch.bool)
    theirs[list(classes)] = True
    inside, outside = logits.masked_fill(~theirs, -torch.inf).max(1), logits.masked_fill(theirs, -torch.inf).max(1)
    thresholds, place = (outside.values - inside.values).unique(return_inverse=True)
    gain = (inside.indices == target).long() - (outside.indices == target).long()
    gained = torch.zeros(len(thresholds) + 1, dtype=torch.long).index_add(0, place + 1, gain).cumsum(0)
    shifts = torch.cat([thresholds[:1] - 1, (thresholds[:-1] + thresholds[1:]) / 2, thresholds[-1:] + 1])
    room = torch.cat([torch.zeros(1), thresholds.diff(), torch.zeros(1)])
    return float(shifts[room.where(gained == gained.max(), -1.0).argmax()])
