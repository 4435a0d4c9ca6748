"""The optional parts of a kind, as protocols that the run tests with ``isinstance``.

A kind implements those that make sense for its models; none inherits from these classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class BindsToData(Protocol):
    """A kind whose measurements need something made from the data beforehand, such as feature extractors."""

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> Any:
        """Return this kind with what it needs to measure models of some data.

        Args:
            data: The data module, after ``setup()``.
            cache: Folder for what takes long to make.
            feature_extractor: TorchScript file of a network that the user wants to compare samples with.
        """


@runtime_checkable
class RestrictsControl(Protocol):
    """A kind some of whose models cannot be trained without a teacher."""

    def check_teacher_free(self, model: nn.Module) -> None:
        """Raise a ConfigError if no control of this student can be trained on data alone."""


@runtime_checkable
class MeasuresQuickly(Protocol):
    """A kind whose full metrics take long; methods that measure many models then use a part of them."""

    def quick_scores(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """Return metrics that are measured quickly, at least the score."""


@runtime_checkable
class MeasuresUnseenClasses(Protocol):
    """A kind that can measure classes that the student's training set left out."""

    def unseen(self, predictions: Any, validation: Any, classes: Sequence[int]) -> dict[str, float]:
        """Return metrics about unseen classes, before and after a correction.

        Args:
            predictions: Predictions to measure.
            validation: Predictions of the same model for the validation split, on which the correction is chosen.
            classes: The classes that the training set left out, at least one.
        """


@runtime_checkable
class HasReferenceScores(Protocol):
    """A kind whose scores need a reference, such as the distance between two sets of real samples."""

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:
        """Return modules that are measured like models, whose scores show how good a score can be, by name."""


@runtime_checkable
class Recommends(Protocol):
    """A kind that can say which of several distilled models to keep."""

    def recommendation(self, fidelity: Mapping[str, Mapping[str, float]]) -> str | None:
        """Return one line on which model to keep, from the fidelity by role; None if there is nothing to say."""


@runtime_checkable
class CountsParameters(Protocol):
    """A kind whose models have another number of free parameters than their tensors have elements."""

    def size(self, model: nn.Module) -> int:
        """Return the number of free parameters."""


@runtime_checkable
class DescribesModel(Protocol):
    """A kind that reports properties of the model itself, such as a number of states."""

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return properties that need no data, by name."""


@runtime_checkable
class PlotsPredictions(Protocol):
    """A kind that draws the predictions of teacher, student and controls side by side."""

    def plot_predictions(self, predictions: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write figures into ``folder`` and return their paths."""


@runtime_checkable
class PlotsModel(Protocol):
    """A kind that draws the models themselves."""

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Write figures into ``folder`` and return their paths.

        Args:
            models: Teacher, student and controls by role.
            folder: For the figures.
            data: The data module; its optional abilities (names of tokens, scaling of pixels) are used if present.
        """


@runtime_checkable
class Exports(Protocol):
    """A kind with file formats of its own, in which a model is written beside the exported weights."""

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the model into ``folder`` and return the paths."""


@runtime_checkable
class DescribesExport(Protocol):
    """A kind whose exported models carry a description, such as a model card."""

    def describe(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write the description into the folder of an exported student, from the report of the run."""
