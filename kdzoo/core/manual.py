"""The base class of methods that take several gradients per step or step several optimizers in turn."""

from abc import abstractmethod
from typing import Any, final

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, as_batch


class ManualDistiller(Distiller):
    """Base class of every method with manual optimization.

    A method writes ``update`` in place of Lightning's automatic step. It takes gradients with
    :meth:`~kdzoo.Distiller.accumulate_gradient`, which respects ``micro_batch_size`` and several ranks, and calls
    ``self.optimizers()`` as in any Lightning module with manual optimization. Learning-rate schedules, modules that
    change once per step, resuming and signals work as for every other method.

    Args:
        student: The module that learns.
        teacher: The module to distil; None for methods without one.
        **options: See :class:`kdzoo.Distiller`.

    Example:
        >>> class PlainSteps(ManualDistiller):
        ...     def losses(self, batch):
        ...         return {"size": self.student(batch["input"]).square().sum(1)}
        ...     def update(self, batch):
        ...         self.optimizers().zero_grad()
        ...         self.accumulate_gradient(batch)
        ...         self.optimizers().step()
        >>> PlainSteps.automatic_optimization
        False
    """

    automatic_optimization = False

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take the gradients of one batch and step the optimizer."""

    @final
    def training_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Update the weights, then the state and the learning rates that change with every step."""
        self.update(as_batch(batch))
        self.update_step_states()
        self._step_schedulers("step")

    @final
    def on_train_epoch_end(self) -> None:
        """Update the learning rates that change with every epoch."""
        self._step_schedulers("epoch")

    def _step_schedulers(self, interval: str) -> None:
        """Step the schedulers of an interval, which Lightning leaves to the method in manual optimization."""
        for config in self.trainer.strategy.lr_scheduler_configs:
            if config.interval != interval:
                continue
            scheduler: Any = config.scheduler
            if config.reduce_on_plateau:
                scheduler.step(self.trainer.callback_metrics[config.monitor or "val/loss"])
            else:
                scheduler.step()
