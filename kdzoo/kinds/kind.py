"""The required interface of a kind of models: how they are recognised, checked, measured and compared."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from kdzoo.core.batch import Batch


class Kind(ABC):
    """Base of the kinds, which evaluate teachers, students and controls of one sort, for every method.

    ``predict`` runs a model over the data once. The run passes its result, which it does not look into, to ``metrics``
    (quality on the data) and ``fidelity`` (closeness to the teacher). Everything else that a kind can do, such as
    figures, export or reference scores, is optional: see :mod:`kdzoo.kinds.protocols`.

    Attributes:
        name: The name by which configurations and reports refer to the kind.
        needs: What a model of this kind must be or do, as a phrase with an article that follows "needs".
        score: Name of the metric by which student, teacher and control are compared; one of those of ``metrics``.
        lower_is_better: Whether a smaller score is better.
        teacher_free: Import path of the distiller that trains a model of this kind on data alone; None if there is
            none, which leaves the report without a control.

    Example:
        >>> from kdzoo.kinds import ClassifierKind
        >>> class ErrorRateKind(ClassifierKind):
        ...     name, score, lower_is_better = "error_rate", "error_rate", True
        ...     def metrics(self, predictions):
        ...         metrics = super().metrics(predictions)
        ...         return {**metrics, "error_rate": 1 - metrics["accuracy"]}
        >>> ErrorRateKind().score
        'error_rate'
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    score: ClassVar[str]
    lower_is_better: ClassVar[bool] = False
    teacher_free: ClassVar[str | None]

    def is_exclusive_match(self, model: nn.Module) -> bool:  # noqa: ARG002
        """Return whether a model can only be of this kind; False if that depends on the data."""
        # The default is for kinds of models that no type identifies, such as classifiers: a user chooses them.
        return False

    @abstractmethod
    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a model that does not fit the kind or the data; called before anything is trained.

        Args:
            role: What the run calls the model, for the message.
            model: The model, which must not be changed.
            batch: A few samples.
            sizes: Sizes that the data determine, such as ``num_classes``, by name.

        Raises:
            ConfigError: Names the role, what the kind needs and what the model did.
        """

    @abstractmethod
    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Any:
        """Return the model's predictions for all batches, computed in eval mode and without gradients.

        Args:
            model: The model; it may be on any device.
            batches: Batches as the loader gives them, in their order.
        """

    @abstractmethod
    def metrics(self, predictions: Any) -> dict[str, float]:
        """Return the quality of predictions against the data, by name of the metric."""

    @abstractmethod
    def fidelity(self, student: Any, teacher: Any) -> dict[str, float]:
        """Return how closely the student's predictions follow the teacher's, by name of the metric."""
