"""Synthetic data sets of a few examples, which are evaluated by networks that are trained on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.abilities import HasPixelScaling
from kdzoo.core.batch import Batch, labelled_samples
from kdzoo.dataset_distillation import (
    InnerNetwork,
    PoisonSet,
    SyntheticSet,
    evaluation_networks,
    files,
    synthetic_set_plots,
)
from kdzoo.errors import ConfigError, first_line
from kdzoo.functional import hard_target_ce
from kdzoo.kinds.kind import Kind
from kdzoo.plotting.style import display_name

# Inputs that a network trained on all data classifies in one call: bounds the memory of its activations.
INPUTS_AT_ONCE = 1024
DIRECT = "direct"
"""Name of the logits of a network that was itself trained on the real data."""


@dataclass(frozen=True)
class Predictions:
    """Logits of networks that were trained on a set, or of one network that was trained on all data.

    Attributes:
        logits: Logits ``[R, n, C]`` of R networks, by name of the inner network; of a network that was trained on all
            data ``[1, n, C]``, under the name ``DIRECT``.
        hard_label_logits: The same for networks that were trained on the images with one-hot labels.
        target: Classes ``[n]``.
    """

    logits: dict[str, Tensor]
    hard_label_logits: dict[str, Tensor]
    target: Tensor

    @property
    def accuracies(self) -> dict[str, Tensor]:
        """Accuracies ``[R]`` of the networks, by name of the inner network."""
        return self._accuracies(self.logits)

    @property
    def hard_label_accuracies(self) -> dict[str, Tensor]:
        """Accuracies ``[R]`` of the networks that were trained with one-hot labels, by name of the inner network."""
        return self._accuracies(self.hard_label_logits)

    def _accuracies(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: evaluation_networks.accuracy(values, self.target) for name, values in logits.items()}


class SyntheticSetKind(Kind):
    """Measures a set by networks that are trained on it by its own schedule, from held-out initial weights.

    The teacher, a network that was trained on all data, is measured by its own predictions.
    """

    name: ClassVar[str] = "synthetic_set"
    needs: ClassVar[str] = "a synthetic data set (kdzoo.dataset_distillation.SyntheticSet)"
    score: ClassVar[str] = "accuracy"
    # Real examples instead of learned ones: the gain over them is what the distillation achieved.
    teacher_free: ClassVar[str] = "kdzoo.distillers.Coreset"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether the model is a synthetic set, but not a poisoned one, which is another kind."""
        return isinstance(model, SyntheticSet) and not isinstance(model, PoisonSet)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a model that is not a synthetic set, and a set or inner network that does not fit the data."""
        if not isinstance(model, SyntheticSet):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=synthetic")
        shape = tuple(batch["input"].shape[1:])
        if tuple(model.images.shape[1:]) != shape or model.num_classes != sizes["num_classes"]:
            raise ConfigError(
                f"{role} does not fit the data: images {tuple(model.images.shape[1:])} of {model.num_classes} classes, "
                f"the data have {shape} and {sizes['num_classes']}"
            )
        for name, inner_network in model.inner_networks.items():
            _check_inner_network(name, inner_network, batch["input"], model.num_classes)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the logits of networks that are trained on a set, or of the model if it is not a set."""
        inputs, target = labelled_samples(batches)
        if isinstance(model, SyntheticSet):
            logits = train_and_predict(model, inputs, model.labels)
            # Fixed labels are one-hot already: the same networks would be trained a second time.
            is_hard = model.label_kind == "fixed"
            hard_label_logits = logits if is_hard else train_and_predict(model, inputs, model.hard_labels())
            return Predictions(logits, hard_label_logits, target)
        model.eval()
        with torch.no_grad():
            direct = torch.cat([model(part).float().cpu() for part in inputs.split(INPUTS_AT_ONCE)])[None]
        return Predictions({DIRECT: direct}, {DIRECT: direct}, target)

    def metrics(self, predictions: Any) -> dict[str, float]:
        """Return the quality of a set, from the accuracies of the networks that are trained on it.

        Args:
            predictions: What :meth:`predict` returned.

        Returns:
            ``accuracy``, the mean over architectures and initial weights; ``accuracy_std``, its standard deviation over
            the initial weights; ``accuracy_worst``, the lowest of any network; ``cross_entropy`` in nats; ``diverged``,
            the share of networks whose training diverged, taken as guessing; ``hard_label_accuracy``, the mean
            after training with one-hot labels; and, with several inner networks, the accuracy of each by its name.
        """
        accuracies, logits = predictions.accuracies, predictions.logits
        # Population deviation (correction=0): with a fixed start there is one network, whose deviation is 0, not NaN.
        deviations = [values.std(correction=0) for values in accuracies.values()]
        cross_entropies = [_cross_entropy(values, predictions.target) for values in logits.values()]
        metrics = {
            "accuracy": _mean(accuracies),
            "accuracy_std": float(torch.stack(deviations).mean()),
            "accuracy_worst": float(torch.cat(list(accuracies.values())).min()),
            "cross_entropy": float(torch.stack(cross_entropies).mean()),
            "diverged": float(torch.cat([_has_diverged(values) for values in logits.values()]).double().mean()),
            "hard_label_accuracy": _mean(predictions.hard_label_accuracies),
        }
        if len(accuracies) > 1:
            metrics |= {f"accuracy_{name}": float(values.mean()) for name, values in accuracies.items()}
        return metrics

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return how close networks that are trained on a set come to the teacher, which was trained on all data.

        Returns:
            ``share_of_teacher``, the accuracy as a share of the teacher's, and ``hard_label_gap``, the hard-label
            recovery of DD-Ranking (Li et al. 2024): the teacher's accuracy minus that after training on the images with
            one-hot labels. It separates the quality of the images from that of the soft labels.
        """
        teacher_accuracy = _mean(teacher.accuracies)
        return {
            "share_of_teacher": _mean(student.accuracies) / teacher_accuracy,
            "hard_label_gap": teacher_accuracy - _mean(student.hard_label_accuracies),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the recall of each class, averaged over all networks."""
        recall = {role: _recall(of_role).numpy() for role, of_role in predictions.items()}
        return [plotting.recall_by_class(recall, folder / "class_recall.png")]

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the numbers of examples and inner steps of a set, and the bytes of its exported arrays."""
        if not isinstance(model, SyntheticSet):
            return {}
        size = sum(array.nbytes for array in files.arrays(model).values())
        return {"examples": model.size, "inner_steps": model.steps, "bytes": size}

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:  # noqa: ARG002
        """Draw the examples of student and control with their labels and step sizes."""
        return [
            synthetic_set_plots.plot_examples(
                model, folder / f"examples_{role}.png", title=f"Synthetic set: {display_name(role)}"
            )
            for role, model in models.items()
            if isinstance(model, SyntheticSet)
        ]

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the examples as files that can be read without kdzoo."""
        pixels = data.pixels if isinstance(data, HasPixelScaling) else None
        return files.write(model, folder, pixels) if isinstance(model, SyntheticSet) else []


def train_and_predict(synthetic_set: SyntheticSet, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Train networks from held-out initial weights on a set, and return their logits for real inputs.

    Args:
        synthetic_set: The set, whose schedule is used.
        inputs: Real inputs ``[n, *in_shape]``.
        labels: Labels ``[M, C]`` to train with, instead of those of the set.

    Returns:
        Logits ``[R, n, C]`` of R networks, by name of the inner network.
    """
    logits = {}
    for name, inner_network in synthetic_set.inner_networks.items():
        weights = evaluation_networks.train_on_set(
            synthetic_set, inner_network, inner_network.held_out(), synthetic_set.schedule(name), labels=labels
        )
        logits[name] = evaluation_networks.predict_logits(inner_network, weights, inputs)
    return logits


def _check_inner_network(name: str, inner_network: InnerNetwork, inputs: Tensor, classes: int) -> None:
    """Reject an inner network that cannot classify the inputs."""
    try:
        with torch.no_grad():
            # New weights rather than ``sample``: a pool is not trained yet when models are checked.
            logits = inner_network.logits(inner_network.initial.sample(1).to(inputs), inputs)
    # A user's network may raise anything; the message names the network and the shape.
    except Exception as error:
        reason = first_line(error)
        raise ConfigError(
            f"inner_network.{name} cannot take inputs of shape {tuple(inputs.shape)}: {reason}"
        ) from error
    if logits.shape != (1, len(inputs), classes):
        raise ConfigError(
            f"inner_network.{name} returns {tuple(logits.shape[1:])}, the data need {(len(inputs), classes)}"
        )


def _mean(accuracies: Mapping[str, Tensor]) -> float:
    """Return the mean over architectures of the mean over their networks."""
    # Two means: architectures count equally, also where one has a fixed start and therefore a single network.
    return float(torch.stack([values.mean() for values in accuracies.values()]).mean())


def _has_diverged(logits: Tensor) -> Tensor:
    """Return which of the networks with logits ``[R, n, C]`` diverged, bool ``[R]``."""
    # ``predict_logits`` sets the logits of diverged networks to 0; those of others are never all exactly 0.
    return (logits == 0).flatten(1).all(1)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross entropy of logits ``[R, n, C]`` with classes ``[n]``, in nats."""
    return hard_target_ce(logits.flatten(0, 1), target.repeat(len(logits))).mean()


def _recall(predictions: Predictions) -> Tensor:
    """Return the recall of each class ``[C]``, averaged over all networks; NaN for classes without samples."""
    logits = torch.cat(list(predictions.logits.values()))
    share_correct = (logits.argmax(-1) == predictions.target).double().mean(0)  # of the networks, for each sample
    classes = logits.shape[-1]
    summed = torch.zeros(classes, dtype=torch.double).index_add(0, predictions.target, share_correct)
    return summed / torch.bincount(predictions.target, minlength=classes)
