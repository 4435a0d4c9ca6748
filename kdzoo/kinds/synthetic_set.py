"""Data sets of a few examples: judged by the networks that are trained on them."""

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
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce
from kdzoo.kinds.kind import Kind


@dataclass(frozen=True)
class Predictions:
    """What networks say: one trained on all data, or many trained on a set.

    Attributes:
        logits: of each inner network, by name, [R, n, C] of R networks.
        hardened: the same for networks that were trained on one-hot labels; of a network itself, ``logits``.
        target: [n].
    """

    logits: dict[str, Tensor]
    hardened: dict[str, Tensor]
    target: Tensor

    def accuracies(self, logits: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the accuracy [R] of every network, by inner network."""
        every = self.logits if logits is None else logits
        return {name: evaluation_networks.accuracy(one, self.target) for name, one in every.items()}


class SyntheticSetKind(Kind):
    """Measured by networks from held-out initial weights that are trained on the set by its own schedule."""

    name: ClassVar[str] = "synthetic_set"
    needs: ClassVar[str] = "a synthetic data set (kdzoo.dataset_distillation.SyntheticSet)"
    score: ClassVar[str] = "accuracy"
    teacher_free: ClassVar[str] = "kdzoo.distillers.Coreset"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether it is a synthetic set that attacks nothing."""
        return isinstance(model, SyntheticSet) and not isinstance(model, PoisonSet)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Refuse what is no synthetic set, images of another shape and inner_networks that do not fit the data."""
        if not isinstance(model, SyntheticSet):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=synthetic")
        shape = tuple(batch["input"].shape[1:])
        if tuple(model.images.shape[1:]) != shape or model.num_classes != sizes["num_classes"]:
            raise ConfigError(
                f"{role} does not fit the data: images {tuple(model.images.shape[1:])} of {model.num_classes} classes, "
                f"the data have {shape} and {sizes['num_classes']}"
            )
        for name, inner_network in model.inner_networks.items():
            _check_learner(name, inner_network, batch["input"], model.num_classes)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return what networks trained on a set say about the batches; another model speaks for itself."""
        inputs, target = labelled_samples(batches)
        if isinstance(model, SyntheticSet):
            own = _said(model, inputs, model.labels)
            hardened = own if model.label_kind == "fixed" else _said(model, inputs, model.hard_labels())
            return Predictions(own, hardened, target)
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(few).float().cpu() for few in inputs.split(1024)])[None]
        return Predictions({"itself": logits}, {"itself": logits}, target)

    def metrics(self, predictions: Any) -> dict[str, float]:
        """Return the accuracy over inner_networks and initial weights, its deviation over the latter, and its worst.

        ``hard_label_accuracy`` is that of networks trained on the images with one-hot labels, ``diverged`` the share
        of networks that diverged, which guess. With several inner_networks, each has its own accuracy beside.
        """
        by_learner = predictions.accuracies()
        every = torch.stack([one.mean() for one in by_learner.values()])
        found = {
            "accuracy": float(every.mean()),
            "accuracy_std": float(torch.stack([one.std(correction=0) for one in by_learner.values()]).mean()),
            "accuracy_worst": float(torch.cat(list(by_learner.values())).min()),
            "cross_entropy": float(
                torch.stack([_loss(one, predictions.target) for one in predictions.logits.values()]).mean()
            ),
            "diverged": float(torch.cat([_is_silent(one) for one in predictions.logits.values()]).double().mean()),
            "hard_label_accuracy": _mean(predictions.accuracies(predictions.hardened)),
        }
        if len(by_learner) > 1:
            found |= {f"accuracy_{name}": float(one.mean()) for name, one in by_learner.items()}
        return found

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of the teacher's accuracy that is reached, and what one-hot labels lack of it.

        ``hard_label_gap`` is the hard-label recovery of DD-Ranking (Li et al. 2024): accuracy on all data minus
        accuracy on the synthetic images with one-hot labels.
        """
        full = _mean(teacher.accuracies())
        return {
            "share_of_teacher": _mean(student.accuracies()) / full,
            "hard_label_gap": full - _mean(student.accuracies(student.hardened)),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the recall of every class, of all networks together."""
        recall = {name: _recall(one).numpy() for name, one in predictions.items()}
        return [plotting.recall_by_class(recall, folder / "class_recall.png")]

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the numbers of examples and inner steps, and the bytes of a set, with the weights of a fixed start."""
        if not isinstance(model, SyntheticSet):
            return {}
        size = sum(one.nbytes for one in files.arrays(model).values())
        return {"examples": model.size, "inner_steps": model.steps, "bytes": size}

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:  # noqa: ARG002
        """Draw the examples of student and control with their labels and step sizes."""
        sets = {name: model for name, model in models.items() if isinstance(model, SyntheticSet)}
        return [synthetic_set_plots.plot_examples(one, folder / f"examples_{name}.png") for name, one in sets.items()]

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the examples as files that need no kdzoo."""
        pixels = data.pixels if isinstance(data, HasPixelScaling) else None
        return files.write(model, folder, pixels) if isinstance(model, SyntheticSet) else []


def _said(few: SyntheticSet, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return, by inner network, the logits [R, n, C] of networks that were trained on the images with ``labels`` [M, C]."""
    found = {}
    for name, inner_network in few.inner_networks.items():
        networks = evaluation_networks.train_on_set(
            few, inner_network, inner_network.held_out(), few.schedule(name), labels=labels
        )
        found[name] = evaluation_networks.predict_logits(inner_network, networks, inputs)
    return found


def _check_learner(name: str, inner_network: InnerNetwork, inputs: Tensor, classes: int) -> None:
    try:
        with torch.no_grad():
            logits = inner_network.logits(inner_network.initial.sample(1).to(inputs), inputs)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"inner_network.{name} cannot take inputs of shape {tuple(inputs.shape)}: {reason}"
        ) from error
    if logits.shape != (1, len(inputs), classes):
        raise ConfigError(
            f"inner_network.{name} returns {tuple(logits.shape[1:])}, the data need {(len(inputs), classes)}"
        )


def _mean(accuracies: Mapping[str, Tensor]) -> float:
    return float(torch.stack([one.mean() for one in accuracies.values()]).mean())


def _is_silent(logits: Tensor) -> Tensor:
    """Return which networks say the same of all, as those that diverged do [R]."""
    return (logits == 0).flatten(1).all(1)


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return hard_target_ce(logits.flatten(0, 1), target.repeat(len(logits))).mean()


def _recall(predictions: Predictions) -> Tensor:
    """Return the share of each class that is recognised [C], over all networks; NaN for classes without samples."""
    every = torch.cat(list(predictions.logits.values()))
    right = (every.argmax(-1) == predictions.target).double().mean(0)
    classes = every.shape[-1]
    summed = torch.zeros(classes, dtype=torch.double).index_add(0, predictions.target, right)
    return summed / torch.bincount(predictions.target, minlength=classes)
