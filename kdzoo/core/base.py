"""The base class of all methods: a distiller transfers knowledge from a frozen teacher to a student by loss terms.

A method writes ``losses``. The weighted sum, exact averaging over micro-batches and ranks, logging, the optimizer and
the handling of the teacher are implemented here, once.

A loss term is a tensor of values, one for each position that it is computed at. It is averaged over all of these
positions, whether they are in this micro-batch, in another one or on another rank. Two terms may have different
numbers of positions (60 labels among 1200 samples); each is divided by its own number.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, TypedDict, final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core.arguments import NamesUnknownArguments, check_models
from kdzoo.core.batch import Batch, DeviceBatch, as_batch, micro_batches, n_samples
from kdzoo.core.evaluation_steps import EvaluationSteps
from kdzoo.core.finite_check import DeferredFiniteCheck, describe_non_finite
from kdzoo.core.frozen_teacher import FrozenTeacher, TeacherOutputs, leave_out_teacher
from kdzoo.core.inference import inference
from kdzoo.core.loss_terms import (
    Count,
    StepMeans,
    at_least_one,
    check_declared,
    check_weights,
    counts_over_ranks,
    merge_weights,
    position_counts,
    total,
)
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.precision import DEVICES_OF_THE_HOST, host_may_read, widest_float
from kdzoo.core.report_extras import ReportExtras
from kdzoo.core.schedules import SchedulerFactory, make_schedule
from kdzoo.core.step_state import UpdatesAfterStep
from kdzoo.errors import ConfigError, DataError, NonFiniteLossError

OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
# Adam at 1e-3 trains every packaged model; it only matters outside of a run, whose configuration names an optimizer.
DEFAULT_OPTIMIZER: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)
# Enough samples to show every shape; a dry run on more would cost as much as a training step.
DRY_RUN_SAMPLES = 8


class ParameterGroup(TypedDict):
    """Parameters with another learning rate than the default.

    Attributes:
        params: The parameters.
        lr_scale: Factor on the optimizer's learning rate, >= 0.
    """

    params: list[nn.Parameter]
    lr_scale: float


class Distiller(EvaluationSteps, metaclass=NamesUnknownArguments):
    """Base class of every distillation method.

    A method declares ``info`` and overrides at most ``losses``, ``prepare``, ``transfer_set``, ``trainable`` and
    ``teacher_outputs``; only ``losses`` is required. Everything else is final or a hook of Lightning's.

    Args:
        student: The module that learns; called as ``student(batch["input"])``.
        teacher: The module to distil. It is frozen, always in eval mode, moves with the device and is absent from
            every checkpoint. None for methods without one.
        optimizer: Called with the trainable parameters; Adam with learning rate 1e-3 by default.
        scheduler: Called with the optimizer; stepped after every epoch. One that needs ``total_steps`` gets the number
            of steps of the training and is stepped after each of them; any other may return Lightning's dictionary
            form to say otherwise.
        loss_weights: Weight of each named term, at least 0; terms that are left out keep their default.
        micro_batch_size: Samples to hold in memory at once, at least 1. A batch is processed in micro-batches of this
            size with exactly the gradient of the whole batch; None processes it at once.

    Attributes:
        frozen_teacher: Returns the teacher's outputs without gradient, from a cache where there is one:
            ``self.frozen_teacher.output(batch)``.
        label_terms: Names of the terms with one value per labelled position, ``info.label_terms`` unless ``__init__``
            changes it.
        notes: What the method chose automatically and why, by subject; printed when the training ends.
        warnings: What went wrong in a training that ended, by subject; printed then, and a part of the report.
        report_extras: What the method adds to the report of a run.

    Raises:
        ConfigError: An argument is out of its range, or names a term that the method does not have.

    Example:
        >>> class MatchOutputs(Distiller):
        ...     def losses(self, batch):
        ...         difference = self.student(batch["input"]) - self.frozen_teacher.output(batch)
        ...         return {"distance": difference.square().mean(1)}
        >>> MatchOutputs(nn.Linear(4, 3), nn.Linear(4, 3)).loss_weights
        {}
    """

    info: ClassVar[MethodInfo] = MethodInfo()

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        optimizer: OptimizerFactory = DEFAULT_OPTIMIZER,
        scheduler: SchedulerFactory | None = None,
        loss_weights: Mapping[str, float | int] | None = None,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        check_models(student, teacher, type(self).__name__, teacher_needed=self.info.teacher == "required")
        if micro_batch_size is not None and (type(micro_batch_size) is not int or micro_batch_size < 1):
            raise ConfigError(f"micro_batch_size must be at least 1 or None, got {micro_batch_size!r}")
        self.student = student
        self.teacher = teacher
        self.micro_batch_size = micro_batch_size
        self.loss_weights = merge_weights(self.info.terms, loss_weights or {})
        self.label_terms = self.info.label_terms
        self.frozen_teacher = FrozenTeacher(teacher, student, self.teacher_outputs)
        self.report_extras = ReportExtras()
        self.notes: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.last_terms: dict[str, Tensor] = {}
        self._optimizer, self._scheduler = optimizer, scheduler
        self._step_states: list[UpdatesAfterStep] = []
        self._finite_check = DeferredFiniteCheck()
        if teacher is not None:
            leave_out_teacher(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, by the short way for the one that Lightning sets around each of its hooks."""
        # It does so about 47 times in a step, and torch searches parameters, buffers and submodules each time.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # ---------------------------------------------------------------- what a method overrides

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named loss terms of one batch, each a tensor of values, one per position.

        A scalar is taken as the mean over the samples of the batch.
        """

    def prepare(self, batch: Batch) -> None:
        """Build modules whose sizes only a batch tells, once, before the optimizer is made and a checkpoint is read."""

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data that the student learns from: ``data``, unless the method makes its own.

        A run calls it after the teacher is trained; with a plain Lightning trainer, call it yourself.
        """
        return data

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield the parameters to optimize, or groups of them with different learning rates.

        By default these are all parameters except the teacher's and those that do not require gradients.
        """
        for name, parameter in self.named_parameters():
            if not name.startswith("teacher.") and parameter.requires_grad:
                yield parameter

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Run the teacher and return what the losses need of it, one row for each sample of the batch, by name."""
        assert self.teacher is not None
        return {"output": self.teacher(batch["input"])}

    # ---------------------------------------------------------------- before the training

    @final
    def setup(self, stage: str) -> None:
        """Validate the method on a few samples of the first batch before anything is trained."""
        if stage != "fit":
            return
        if self.trainer.accumulate_grad_batches != 1:
            raise ConfigError(
                f"accumulate_grad_batches={self.trainer.accumulate_grad_batches} would average means of unequal "
                "counts; give the loader the whole batch and set micro_batch_size to what fits in memory"
            )
        # Lightning has no public name for "the training loader, whoever brought it" at this point.
        first = next(iter(self.trainer.fit_loop._data_source.dataloader()), None)
        if first is None:
            raise DataError("the training loader has no batch; give it at least one sample")
        self.dry_run({key: value[:DRY_RUN_SAMPLES].to(self.device) for key, value in as_batch(first).items()})
        # Lightning keeps the mode that it finds, and exported and pretrained students come in eval mode.
        self.train()
        self._step_states = [
            module
            for name, module in self.named_modules()
            if isinstance(module, UpdatesAfterStep) and name.partition(".")[0] != "teacher"
        ]

    @final
    def dry_run(self, batch: Batch) -> dict[str, Tensor]:
        """Run ``prepare`` and ``losses`` once without training, and return the loss terms.

        Raises:
            ConfigError: The losses reject what the models return, or a weight names an unknown term.
        """
        try:
            with self.frozen_teacher.counting_calls(self.teacher):
                with inference(self):
                    self.prepare(batch)
                with inference(self):  # once more, for the modules that prepare has made
                    terms = self.losses(batch)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{type(self).__name__} does not fit these models and data: {error}") from error
        if self.info.terms:
            check_declared(terms, self.info.terms, type(self).__name__)
        check_weights([name for name, weight in self.loss_weights.items() if weight], terms)
        return terms

    @final
    def train(self, mode: bool = True) -> "Distiller":
        """Switch the student to training or evaluation; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    # ---------------------------------------------------------------- training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss of the last micro-batch; those before it have left their gradients behind."""
        batch = as_batch(batch)
        *earlier, last = micro_batches(batch, self.micro_batch_size)
        counts = self._counts_over_ranks(batch)
        if counts is not None:  # optimizer_zero_grad would come after the earlier micro-batches
            self._clear_gradients()
        means = StepMeans()
        for micro_batch in earlier:
            self.trainer.strategy.backward(self._loss(micro_batch, counts, means), None)
        loss = self._loss(last, counts, means)
        self._log_terms(means)
        return loss

    @final
    def accumulate_gradient(self, batch: Batch) -> None:
        """Add the gradient of a whole batch's loss to ``.grad``, in micro-batches and over all ranks.

        For methods with manual optimization (:class:`kdzoo.core.manual.ManualDistiller`).
        """
        counts = self._counts_over_ranks(batch)
        means = StepMeans()
        for micro_batch in micro_batches(batch, self.micro_batch_size):
            self.manual_backward(self._loss(micro_batch, counts, means))
        self._log_terms(means)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Step the optimizer, then update the modules whose state changes once per step."""
        super().optimizer_step(*args, **options)
        self.update_step_states()

    @final
    def update_step_states(self) -> None:
        """Call ``after_step`` of every module that has one; see :mod:`kdzoo.core.step_state`.

        This happens inside of the step, so that a checkpoint written after it holds the new state.
        """
        for module in self._step_states:
            module.after_step()

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Leave the gradients of earlier micro-batches alone; ``training_step`` cleared them first."""
        if self.micro_batch_size is None:
            super().optimizer_zero_grad(*args)

    @final
    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return all parameters that ``trainable`` yields, without their groups."""
        parameters: list[nn.Parameter] = []
        for item in self.trainable():
            parameters += [item] if isinstance(item, nn.Parameter) else item["params"]
        return parameters

    def _clear_gradients(self) -> None:
        for parameter in self.trainable_parameters():
            parameter.grad = None

    def _counts_over_ranks(self, batch: Batch) -> list[Count] | None:
        """Return the numbers of valid and labelled positions over all ranks; None for a batch that is not divided."""
        return None if self.micro_batch_size is None else counts_over_ranks(position_counts(batch), self.device)

    def _loss(self, micro_batch: Batch, whole: list[Count] | None, means: StepMeans) -> Tensor:
        """Return a micro-batch's share of the weighted sum of means, and add its share to ``means``.

        ``whole`` holds the numbers of valid and labelled positions of the whole batch over all ranks; None means that
        the batch is not divided, so its own counts are right.
        """
        with self.frozen_teacher.using_cache("train"):
            terms = self.losses(micro_batch)
        sums = {name: total(value, n_samples(micro_batch)) for name, value in terms.items()}
        counts = self._counts({name: count for name, (_, count) in sums.items()}, micro_batch, whole)
        loss = torch.zeros((), dtype=widest_float(self.device), device=self.device)
        for name, (summed, _) in sums.items():
            # Data parallelism averages the gradients over the ranks.
            mean = summed * (self.trainer.world_size / at_least_one(counts[name]))
            loss = loss + self.loss_weights.get(name, 1.0) * mean
            means.add(name, mean.detach(), counts[name])
        if not host_may_read(loss):
            self._finite_check.add(self.trainer.global_step, {name: summed for name, (summed, _) in sums.items()})
        elif not torch.isfinite(loss):
            where = f"at epoch {self.current_epoch}, step {self.trainer.global_step}"
            raise NonFiniteLossError(describe_non_finite(terms, micro_batch, self.label_terms, where))
        return loss

    def _counts(self, counts: dict[str, int], micro_batch: Batch, whole: list[Count] | None) -> dict[str, Count]:
        """Return the number of values by which each term is divided, over all micro-batches and ranks."""
        if whole is None:
            return dict(zip(counts, counts_over_ranks(list(counts.values()), self.device), strict=True))
        positions = position_counts(micro_batch)
        for name, count in counts.items():
            expected = positions[name in self.label_terms]
            if count != expected:
                raise ConfigError(
                    "micro_batch_size needs terms with one value per valid position (per labelled one, if named "
                    f"in label_terms); term {name!r} has {count} values for {expected} positions"
                )
        return {name: whole[name in self.label_terms] for name in counts}

    def _log_terms(self, means: StepMeans) -> None:
        """Log the means of the terms that have a value, every ``log_every_n_steps`` steps."""
        trainer: Any = self.trainer  # Lightning sets log_every_n_steps from outside
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self.check_finite()
            self.last_terms = {
                name: self.trainer.strategy.reduce(mean) for name, mean in means.of_terms_with_values().items()
            }
            self.log_dict({f"train/{name}": mean for name, mean in self.last_terms.items()}, prog_bar=True)

    @final
    def check_finite(self) -> None:
        """Reject a training whose loss was not finite at an earlier step; called before a checkpoint is written.

        Raises:
            NonFiniteLossError: Names the loss term and the step.
        """
        self._finite_check.raise_if_failed()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002 - Lightning's signature
        """Write no checkpoint of a training that has diverged."""
        self.check_finite()

    @final
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device, and keep in the host's memory what decides which positions count."""
        original = as_batch(batch)
        if device.type in DEVICES_OF_THE_HOST:
            return original  # it is there already; Lightning's walk through it would cost 0.1 ms in every step
        return DeviceBatch(super().transfer_batch_to_device(original, device, dataloader_idx), original)

    # ---------------------------------------------------------------- optimizer

    def configure_optimizers(self) -> Any:
        """Make the optimizer over ``trainable`` and its scheduler."""
        items = list(self.trainable())
        groups = [item for item in items if not isinstance(item, nn.Parameter)]
        if groups and len(groups) < len(items):
            raise ConfigError(f"{type(self).__name__}.trainable must yield either parameters or groups, not both")
        optimizer = self._optimizer([{"params": group["params"]} for group in groups] or items)
        for group, settings in zip(groups, optimizer.param_groups, strict=bool(groups)):
            settings["lr"] *= group["lr_scale"]
        if self._scheduler is None:
            return optimizer
        steps = 1 if self._trainer is None else self.trainer.estimated_stepping_batches
        return {
            "optimizer": optimizer,
            "lr_scheduler": make_schedule(self._scheduler, optimizer, total_steps=int(steps)),
        }
