"""The base class of methods that compute their student in closed form instead of by gradient descent.

An epoch shows the method every batch once (``observe``); at its end the student is set (``solve``). One iteration of
expectation maximization is one epoch; a method that needs to see the data only once ends the training itself.
Everything else, from the frozen teacher to exact resume, is that of every other distiller.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.base import Distiller, ParameterGroup
from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.loss_terms import RunningMeans
from kdzoo.core.method_info import MethodInfo

CLOSED_FORM_EXEMPT: Mapping[str, str] = MappingProxyType(
    {
        "training": "the student is computed at the end of an epoch; steps on one batch lower nothing",
        "gradients": "nothing is trained by gradients",
        "micro_batches": "there is no gradient to accumulate",
        "data_parallel": "torch's data parallelism wraps only modules that have gradients",
        "compile": "nothing is trained by gradients, so there is no step to compile",
        "accelerator": "the student is computed in the host's memory",
    }
)
"""Contract checks that cannot apply to a method without gradients."""


class ClosedFormDistiller(Distiller):
    """Base class of every method whose update is a formula.

    A subclass implements ``losses``, which here only measure the student, ``observe`` and ``solve``. It stores what it
    needs of the observed batches in ``observed``, which is saved with checkpoints. If it sets ``info``, it passes
    ``exempt=CLOSED_FORM_EXEMPT`` to it.

    Args:
        student: The module that ``solve`` sets.
        teacher: The module to distil; None for methods without one.
        **options: See :class:`kdzoo.Distiller`; optimizer and scheduler are not used.

    Example:
        >>> class Mean(ClosedFormDistiller):
        ...     info = MethodInfo(teacher="none", exempt=CLOSED_FORM_EXEMPT)
        ...     def losses(self, batch):
        ...         return {"distance": (batch["input"] - self.student.bias).square().sum(1)}
        ...     def observe(self, batch):
        ...         self.observed = {"sum": self.observed.get("sum", 0) + batch["input"].sum(0)}
        ...     def solve(self):
        ...         self.student.bias.data = self.observed["sum"]
        ...         return True
        >>> Mean(nn.Linear(1, 2)).automatic_optimization
        False
    """

    automatic_optimization = False
    info: ClassVar[MethodInfo] = MethodInfo(exempt=CLOSED_FORM_EXEMPT)

    def __init__(self, student: nn.Module, teacher: nn.Module | None = None, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.observed: dict[str, Any] = {}
        # The losses only measure, on few batches: outputs of the teacher for every sample would rarely be read again.
        self.frozen_teacher.cache_key = None

    @abstractmethod
    def observe(self, batch: Batch) -> None:
        """Process one batch; what ``solve`` needs of it is stored in ``observed``."""

    @abstractmethod
    def solve(self) -> bool:
        """Set the student from ``observed``, drop what is no longer needed, and return whether the training is over."""

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield nothing: no parameter is optimized by gradients."""
        return iter(())

    def configure_optimizers(self) -> None:
        """Return no optimizer."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Let the method observe one batch, and measure the student on every ``log_every_n_steps``-th."""
        batch = as_batch(batch)
        trainer: Any = self.trainer  # Lightning sets log_every_n_steps from outside
        with torch.no_grad():
            if batch_idx % trainer.log_every_n_steps == 0:
                self.last_terms = self._measured(batch)
            self.observe(batch)

    def on_train_epoch_end(self) -> None:
        """Set the student; end the training when ``solve`` requests it."""
        with torch.no_grad():
            is_over = self.solve()
        self.trainer.should_stop = self.trainer.should_stop or is_over

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what has been observed."""
        checkpoint["observed"] = self.observed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with what had been observed."""
        self.observed = checkpoint["observed"]

    def _measured(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of each loss term over one batch."""
        means = RunningMeans()
        means.add(self.losses(batch), n_samples(batch))
        return {name: torch.as_tensor(mean) for name, mean in means.means().items()}
