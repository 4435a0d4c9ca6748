"""What a kind of model is: how it is called, measured, compared, drawn and left teacher_free."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from kdzoo.core.batch import Batch


class Kind(ABC):
    """Everything that teachers, students and controls of one kind share.

    ``predict`` runs a model over data once; what it returns is opaque to the run, which hands it to
    ``metrics`` (against the data), ``fidelity`` (against the teacher) and ``figures``.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    """What a model of this kind must do, in one phrase."""
    score: ClassVar[str]
    """The metric by which student, teacher and control are compared."""
    lower_is_better: ClassVar[bool] = False
    """Whether a smaller score is the better one."""
    teacher_free: ClassVar[str | None]
    """Target of the distiller that trains a model of this kind from data alone; None where nothing can."""

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "Kind":  # noqa: ARG002
        """Return this kind, made ready to judge models of some data.

        Args:
            data: the data module.
            cache: folder for what is needed for that.
            feature_extractor: file of a network that the user wants to judge; of use for few kinds.
        """
        return self

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return what shows how good a score can be, by name, to be measured like models; nothing for most kinds."""
        return {}

    def is_exclusive_match(self, model: nn.Module) -> bool:  # noqa: ARG002
        """Return whether a model can be of no other kind."""
        return False

    @abstractmethod
    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Refuse a model that does not fit the kind or the data.

        Raises:
            ConfigError: names the role, what the kind needs and what the model did.
        """

    def check_teacher_free(self, model: nn.Module) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuse a student of which there can be no control that is trained on data alone.

        Raises:
            ConfigError: says why.
        """

    @abstractmethod
    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Any:
        """Return what the model says about the batches, in eval mode and without gradients."""

    @abstractmethod
    def metrics(self, predictions: Any) -> dict[str, float]:
        """Return the quality of predictions against the data."""

    def scores(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """Return what is quickly measured of a model, at least the score, for methods that measure many models."""
        return self.metrics(self.predict(model, batches))

    def unseen(self, predictions: Any, validation: Any, classes: Sequence[int]) -> dict[str, float]:  # noqa: ARG002
        """Return what a model makes of classes that its training left out; nothing for kinds without classes.

        Args:
            predictions: what is measured.
            validation: predictions of the same model by which a correction may be chosen.
            classes: the classes that training left out, at least one.
        """
        return {}

    @abstractmethod
    def fidelity(self, student: Any, teacher: Any) -> dict[str, float]:
        """Return how closely a student follows its teacher."""

    def recommendation(self, fidelity: Mapping[str, Mapping[str, float]]) -> str | None:  # noqa: ARG002
        """Return one line on which of the taught models to keep, from their fidelity by role; None for most kinds."""
        return None

    @abstractmethod
    def plot_predictions(self, predictions: Mapping[str, Any], folder: Path) -> list[Path]:
        """Draw teacher, student and controls side by side; return the files."""

    def size(self, model: nn.Module) -> int:
        """Return the number of a model's parameters."""
        return sum(parameter.numel() for parameter in model.parameters())

    def properties(self, model: nn.Module) -> dict[str, int | float]:  # noqa: ARG002
        """Return what the report says of the model itself, without data; nothing for most kinds."""
        return {}

    def plot_model(
        self,
        models: Mapping[str, nn.Module],  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        data: Any = None,  # noqa: ARG002
    ) -> list[Path]:
        """Draw the models themselves; return the files.

        Args:
            models: teacher, student and controls.
            folder: for the figures.
            data: the data module; it may name its tokens (``symbols``) and say how pixels became numbers (``pixels``).
        """
        return []

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:  # noqa: ARG002
        """Write a model in the formats of its field, beside the exported weights; return the files."""
        return []

    def describe(self, folder: Path, result: Mapping[str, Any]) -> None:  # noqa: B027 - most kinds have nothing to add
        """Write into the folder of an exported student what its field says of a model, from the report of the run."""
