"""The optional parts of a kind, as protocols that the run tests with ``isinstance``.

A kind implements those that make sense for its models. It need not inherit from these classes: having the method is
enough, as with :mod:`kdzoo.core.abilities`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class BindsToData(Protocol):
    """A kind whose measurements need something that is computed from the data first, such as feature extractors."""

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> Any:
        """Return a kind of the same class that is ready to measure models of these data.

        Args:
            data: The data module, after ``setup()``.
            cache: Folder for results that take long to compute, shared by all runs.
            feature_extractor: TorchScript file of a network by whose features the user wants to compare samples.
        """


@runtime_checkable
class RestrictsControl(Protocol):
    """A kind with models that cannot be trained without a teacher."""

    def check_teacher_free(self, model: nn.Module) -> None:
        """Raise a ConfigError if a model like this student cannot be trained on data alone, as a control."""


@runtime_checkable
class MeasuresQuickly(Protocol):
    """A kind whose full metrics take long to compute; methods that measure many models use a part of them."""

    def quick_scores(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """Return metrics that can be computed quickly, at least the score, by name."""


@runtime_checkable
class MeasuresUnseenClasses(Protocol):
    """A kind that can measure classes that the student's training split lacks."""

    def unseen(self, predictions: Any, validation: Any, classes: Sequence[int]) -> dict[str, float]:
        """Return metrics about unseen classes, before and after a correction.

        Args:
            predictions: Predictions to measure.
            validation: Predictions of the same model for the validation split, on which the correction is chosen.
            classes: The classes that the training split lacks, at least one.
        """


@runtime_checkable
class HasReferenceScores(Protocol):
    """A kind whose scores need a reference to be understood, such as the distance between two sets of real samples."""

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:
        """Return modules that are measured like models and whose scores show how good a score can be, by name.

        Args:
            models: Teacher, student and controls by role.
            data: The data module.
        """


@runtime_checkable
class Recommends(Protocol):
    """A kind that can recommend one of several distilled models."""

    def recommendation(self, fidelity: Mapping[str, Mapping[str, float]]) -> str | None:
        """Return one line that recommends a model, or None.

        Args:
            fidelity: What ``Kind.fidelity`` returned, by role, averaged over the seeds.
        """


@runtime_checkable
class Warns(Protocol):
    """A kind that recognises models which have failed, although their training ended without an error."""

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return what is wrong with a model, a clause for each fault that begins with a lower-case letter.

        Args:
            metrics: What ``Kind.metrics`` returned.
        """


@runtime_checkable
class CountsParameters(Protocol):
    """A kind whose models have fewer free parameters than their tensors have elements, such as automata."""

    def size(self, model: nn.Module) -> int:
        """Return the number of free parameters."""


@runtime_checkable
class DescribesModel(Protocol):
    """A kind that reports properties of the model itself, such as a number of states."""

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return properties that can be computed without data, by name."""


@runtime_checkable
class PlotsPredictions(Protocol):
    """A kind that draws the predictions of teacher, student and controls side by side."""

    def plot_predictions(self, predictions: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write figures into ``folder`` and return their paths.

        Args:
            predictions: What ``Kind.predict`` returned for the test split, by role.
            folder: Folder for the figures.
        """


@runtime_checkable
class PlotsModel(Protocol):
    """A kind that draws the models themselves."""

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Write figures into ``folder`` and return their paths.

        Args:
            models: Teacher, student and controls by role.
            folder: Folder for the figures.
            data: The data module; its optional abilities (names of tokens, scaling of pixels) are used if present.
        """


@runtime_checkable
class DrawsSnapshots(Protocol):
    """A kind that shows during a training what a model has learned so far."""

    def snapshots(self, data: Any) -> Callable[[nn.Module], Tensor | None]:
        """Return a function that draws a model.

        It returns images ``[n, c, h, w]`` in [0, 1] that depend on the weights of the model alone, and None for a model
        that it cannot draw. It must leave the model as it is.

        Args:
            data: The data module, after ``setup()``.
        """


@runtime_checkable
class Exports(Protocol):
    """A kind that also writes a model in its specific file formats, next to the exported weights."""

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the model into ``folder`` and return the paths of the files.

        Args:
            model: The trained student.
            folder: Folder of the exported weights.
            data: The data module; its optional abilities (names of tokens, scaling of pixels) are used if present.
        """


@runtime_checkable
class DescribesExport(Protocol):
    """A kind whose exported models carry a description, such as a model card."""

    def describe(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write the description of an exported student.

        Args:
            folder: Folder of the exported student.
            result: The report of the run.
        """
