"""The required interface of a kind of model: how such models are recognised, checked, measured and compared."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from kdzoo.core.batch import Batch


class Kind(ABC):
    """What all teachers, students and controls of one sort have in common, whatever the method.

    ``predict`` runs a model over the data once. What it returns is opaque to the run, which hands it to ``metrics``
    (against the data) and ``fidelity`` (against the teacher). Everything else that a kind can do (figures, export,
    reference scores, ...) is optional: see :mod:`kdzoo.kinds.protocols`.
    """

    name: ClassVar[str]
    """The name by which configurations and reports refer to the kind."""
    needs: ClassVar[str]
    """What a model of this kind must be or do, in one phrase."""
    score: ClassVar[str]
    """The metric by which student, teacher and control are compared."""
    lower_is_better: ClassVar[bool] = False
    """Whether a smaller score is better."""
    teacher_free: ClassVar[str | None]
    """Name of the distiller that trains a model of this kind from data alone; None if there is none."""

    def is_exclusive_match(self, model: nn.Module) -> bool:  # noqa: ARG002
        """Return whether a model is of this kind, judging by the model alone; False if it depends on the data."""
        return False

    @abstractmethod
    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a model that does not fit the kind or the data.

        Args:
            role: What the run calls the model, for the message.
            model: The model, which is not changed.
            batch: A few samples.
            sizes: The sizes that the data fix, as ``num_classes``.

        Raises:
            ConfigError: Names the role, what the kind needs and what the model did.
        """

    @abstractmethod
    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Any:
        """Return the model's predictions for all batches, in eval mode and without gradients."""

    @abstractmethod
    def metrics(self, predictions: Any) -> dict[str, float]:
        """Return the quality of predictions against the data, by name of the metric."""

    @abstractmethod
    def fidelity(self, student: Any, teacher: Any) -> dict[str, float]:
        """Return how closely the student's predictions follow the teacher's, by name of the metric."""
