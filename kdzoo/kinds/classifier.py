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
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional import hard_target_ce
from kdzoo.kinds.logits import check_logits
from kdzoo.kinds.text_kind import TextKind
from kdzoo.metrics import Agreement, TeacherKL
from kdzoo.tensor_networks.mps_report_figures import open_chains, plot_chains

# Guo et al. 2017, "On Calibration of Modern Neural Networks", use 15 bins; with another number the errors would not be
# comparable with published ones.
CALIBRATION_BINS = 15
# Training inputs whose marginal distributions the plots of a matrix product state are computed under: enough for the
# distribution of a single pixel; more would only cost time.
MARGINAL_INPUTS = 300
# Most classes of which the plots explain one example each: as many as fit side by side in a figure.
EXPLAINED_CLASSES = 10


@runtime_checkable
class ClassifierModel(Protocol):
    """A module that returns logits ``[..., classes]``, one row for each position of the target."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits of ``inputs`` ``[batch, ...]``."""


@dataclass(frozen=True)
class Predictions:
    """Logits and targets of all labelled positions, in the order of the data.

    Attributes:
        logits: ``[n, classes]``, float32.
        target: Classes ``[n]``.
    """

    logits: Tensor
    target: Tensor

    @property
    def predicted(self) -> Tensor:
        """The most likely class of each position, ``[n]``."""
        return self.logits.argmax(1)


class ClassifierKind(TextKind):
    """Measures classifiers by accuracy and calibration, and by agreement with and divergence from the teacher."""

    name: ClassVar[str] = "classifier"
    task: ClassVar[str] = "classification"
    needs: ClassVar[str] = "a module that returns logits [..., classes]"
    score: ClassVar[str] = "accuracy"
    teacher_free: ClassVar[str] = "kdzoo.distillers.Supervised"

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few samples and compare the shape of its output with the data.

        Raises:
            ConfigError: The data have fewer than two classes, or the model does not fit them.
        """
        if "num_classes" not in sizes:
            raise ConfigError(f"{role} {type(model).__name__} needs data of classes, which have num_classes")
        if sizes["num_classes"] < 2:
            raise ConfigError(f"the data have {sizes['num_classes']} class; a classifier needs at least 2")
        self.check_text(role, model, sizes)
        check_logits(role, model, batch, noun=self.name, size=("num_classes", sizes["num_classes"]))

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return logits and targets of all labelled positions.

        Raises:
            DataError: The batches have no labels.
        """
        model.eval()
        # A model without parameters, such as a wrapped program, runs on the CPU.
        device = next(iter(model.parameters()), torch.empty(0)).device
        logits, target = [], []
        for raw in batches:
            batch = as_batch(raw)
            with torch.no_grad():
                output = model(batch["input"].to(device)).cpu()
            # float32 also after bfloat16, whose 8 bits would make softmax and calibration inaccurate.
            logits.append(output[labelled_positions(batch)].float())
            target.append(labels(batch))
        if not sum(map(len, target)):
            raise DataError("the data to measure a classifier on have no labels; allowed: at least one labelled sample")
        return Predictions(torch.cat(logits), torch.cat(target))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the quality of predictions.

        Args:
            predictions: What :meth:`predict` returned.

        Returns:
            ``accuracy`` in [0, 1], ``errors`` as a count, ``cross_entropy`` in nats, and ``calibration_error``, the
            expected calibration error in [0, 1] (Guo et al. 2017, equation 3).
        """
        logits, target = predictions.logits, predictions.target
        # A count in addition to the rate: results on MNIST are published as numbers of errors.
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

        A student whose training set lacks a class learns a bias for it that is much too low (Hinton, Vinyals & Dean
        2015, section 3). The shift corrects the bias.

        Args:
            predictions: Predictions to measure.
            validation: Predictions of the same model for the validation split, on which the shift is chosen.
            classes: The classes that the training set left out, at least one.

        Returns:
            ``unseen_recall`` and ``unseen_recall_shifted`` of these classes, ``errors_shifted`` of all classes, and
            ``unseen_shift``, the shift in units of logits.
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
        """Return ``agreement``, the share of equal decisions, and ``kl``, the mean KL(teacher || student) in nats."""
        return {
            "agreement": float(Agreement()(student.logits, teacher.logits)),
            "kl": float(TeacherKL()(student.logits, teacher.logits)),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw a reliability diagram and the recall of every class."""
        confidence, recall = {}, {}
        for role, of_role in predictions.items():
            probability, predicted = of_role.logits.softmax(1).max(1)
            confidence[role] = (probability.numpy(), (predicted == of_role.target).numpy())
            recall[role] = class_recall(of_role).numpy()
        return [
            plotting.reliability_diagram(confidence, folder / "reliability.png", bins=CALIBRATION_BINS),
            plotting.recall_by_class(recall, folder / "class_recall.png"),
        ]

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw the structure of models that are matrix product states, and the teacher's saliency for comparison."""
        if data is None or not open_chains(models):
            return []
        train_inputs = first_inputs(data.train_eval_dataloader(), MARGINAL_INPUTS)
        examples, classes = one_of_each_class(data.test_dataloader())
        explained = ("teacher",) if "teacher" in models else ()
        return plot_chains(models, train_inputs, examples, classes, folder, saliency=explained)


def first_inputs(batches: Iterable[Any], count: int) -> Tensor:
    """Return the first ``count`` inputs of several batches ``[count, ...]``, or all if there are fewer."""
    inputs: list[Tensor] = []
    for batch in batches:
        inputs.append(as_batch(batch)["input"])
        if sum(map(len, inputs)) >= count:
            break  # the batches that follow would be read from disk for nothing
    return torch.cat(inputs)[:count]


def one_of_each_class(batches: Iterable[Any]) -> tuple[Tensor, list[int]]:
    """Return the first labelled input of each class of the first batch, and these classes, at most ten.

    Args:
        batches: Batches, of which only the first is read.

    Returns:
        Inputs ``[n, ...]`` and their n classes in increasing order.
    """
    inputs, target = labelled_samples([next(iter(batches))])
    classes = target.unique().tolist()[:EXPLAINED_CLASSES]
    return inputs[[int((target == label).nonzero()[0]) for label in classes]], classes


def class_recall(predictions: Predictions) -> Tensor:
    """Return the recall of each class, ``[classes]``; NaN for classes without samples."""
    classes = predictions.logits.shape[1]
    correct = predictions.target[predictions.predicted == predictions.target]
    return torch.bincount(correct, minlength=classes) / torch.bincount(predictions.target, minlength=classes)


def recall_of(predictions: Predictions, classes: Sequence[int]) -> float:
    """Return the share of the samples of ``classes`` that are recognised; NaN if there are none."""
    of_classes = torch.isin(predictions.target, torch.tensor(classes))
    return float((predictions.predicted == predictions.target)[of_classes].double().mean())


def shift_classes(logits: Tensor, classes: Sequence[int], shift: float) -> Tensor:
    """Return a copy of ``logits`` ``[n, classes]`` with ``shift`` added to those of ``classes``."""
    shifted = logits.clone()
    shifted[:, list(classes)] += shift
    return shifted


def best_shift(logits: Tensor, target: Tensor, classes: Sequence[int]) -> float:
    """Return the number that makes the decisions most accurate when it is added to the logits of ``classes``.

    The decision for a sample changes to one of ``classes`` when the shift exceeds a threshold: the difference between
    the largest logit of the other classes and the largest one of ``classes``. Between two neighbouring thresholds no
    decision changes.

    Args:
        logits: Finite logits ``[n, classes]``, n >= 1.
        target: Classes ``[n]``.
        classes: At least one class, and not all.

    Returns:
        The middle of the widest interval between thresholds with the most correct decisions. An interval without an end
        is used only if no other is as good; the result is then 1 beyond the outermost threshold.
    """
    logits = logits.double()
    is_shifted = torch.zeros(logits.shape[1], dtype=torch.bool)
    is_shifted[list(classes)] = True
    inside = logits.masked_fill(~is_shifted, -torch.inf).max(1)
    outside = logits.masked_fill(is_shifted, -torch.inf).max(1)
    thresholds, position = (outside.values - inside.values).unique(return_inverse=True)
    # A sweep over the thresholds in increasing order: each adds the samples whose decision becomes correct there and
    # subtracts those whose decision was correct before. Entry 0 belongs to a shift below all thresholds.
    change = (inside.indices == target).long() - (outside.indices == target).long()
    correct = torch.zeros(len(thresholds) + 1, dtype=torch.long).index_add(0, position + 1, change).cumsum(0)
    shifts = torch.cat([thresholds[:1] - 1, (thresholds[:-1] + thresholds[1:]) / 2, thresholds[-1:] + 1])
    # The widest of the equally good intervals: its middle is farthest from any threshold, and so depends least on which
    # samples the validation split has. The two outer intervals are given the width 0.
    widths = torch.cat([torch.zeros(1), thresholds.diff(), torch.zeros(1)])
    return float(shifts[widths.where(correct == correct.max(), -1.0).argmax()])
