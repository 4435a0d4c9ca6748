"""The base class of methods that compute their student in closed form instead of descending a gradient.

An epoch shows the method every batch once (``observe``); at its end the student is set (``solve``). Expectation
maximisation is one epoch for each iteration; a method that needs to see the data once stops the training itself.
Everything else, from the frozen teacher to exact resume, is that of every other distiller.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.loss_terms import RunningMeans


class FittedDistiller(Distiller):
    """Base of every method whose update is a formula.

    A method writes ``losses``, which here only measure the student, ``observe`` and ``solve``. What it has
    observed and still needs belongs into ``observed``, which is saved with checkpoints.

    Args:
        student: the module that ``solve`` sets.
        teacher: the module that is imitated; None for methods without one.
        **options: see :class:`kdzoo.Distiller`; optimizer and scheduler are not used.

    Example:
        >>> class Mean(FittedDistiller):
        ...     teacher_kind = None
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
    uses_teacher_output: bool = False
    exempt: ClassVar[Mapping[str, str]] = {
        "training": "the student is computed at the end of an epoch; steps on one batch lower nothing",
        "gradients": "nothing is trained by gradients",
        "micro_batches": "there is no gradient to accumulate",
        "data_parallel": "torch's data parallelism wraps only modules that have gradients",
        "compile": "nothing is trained by gradients, so there is no step to compile",
    }

    def __init__(self, student: nn.Module, teacher: nn.Module | None = None, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.observed: dict[str, Any] = {}

    @abstractmethod
    def observe(self, batch: Batch) -> None:
        """Take in what one batch says; what is kept goes into ``observed``."""

    @abstractmethod
    def solve(self) -> bool:
        """Set the student from what was observed, forget what is not needed any more; return whether that was all."""

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield nothing: no parameter is optimized by gradients."""
        return iter(())

    def configure_optimizers(self) -> None:
        """Return no optimizer."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Show one batch to the method, and measure the student on some."""
        batch = as_batch(batch)
        trainer: Any = self.trainer  # Lightning sets log_every_n_steps from outside
        with torch.no_grad():
            if batch_idx % trainer.log_every_n_steps == 0:
                self.last_terms = self._measured(batch)
            self.observe(batch)

    def on_train_epoch_end(self) -> None:
        """Set the student; end the training when that was all."""
        with torch.no_grad():
            finished = self.solve()
        self.trainer.should_stop = self.trainer.should_stop or finished

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what has been observed."""
        checkpoint["observed"] = self.observed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with what had been observed."""
        self.observed = checkpoint["observed"]

    def _measured(self, batch: Batch) -> dict[str, Tensor]:
        means = RunningMeans()
        means.add(self.losses(batch), n_samples(batch))
        return {name: torch.as_tensor(mean) for name, mean in means.means().items()}
