"""The base class: a distiller moves what a frozen teacher knows into a student by named losses.

A method writes ``losses``; the weighted sum, exact averaging over micro-batches and ranks, logging, the
optimizer and the handling of the teacher are here, once.

A term is a tensor of values, one for each position that it is about. It is averaged over all these
positions, wherever they are: in this micro-batch, in another one or on another rank. Two terms may
have different numbers of positions (60 labels among 1200 samples); each is divided by its own.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch, as_batch, n_samples, split
from kdzoo.core.inference import inference
from kdzoo.core.loss_terms import RunningMeans, over_ranks, position_counts, rows_about, total
from kdzoo.errors import ConfigError, DataError, NonFiniteLossError

OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
SchedulerFactory = Callable[..., Any]
Measure = Callable[[nn.Module, Iterable[Any]], dict[str, float]]
"""Returns metrics of a model on batches, as :meth:`kdzoo.kinds.Kind.scores` does."""
TeacherOutputs = dict[str, Tensor]
"""Tensors [n, ...] by name: what a teacher says of n samples."""
DEFAULT_OPTIMIZER: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)


class Distiller(pl.LightningModule, ABC):
    """Base of every distillation method.

    Args:
        student: the module that learns; called as ``student(batch["input"])``.
        teacher: the module that is imitated. It is frozen, always in eval mode, moves with the device
            and is absent from every checkpoint. None for methods without one.
        optimizer: called with the trainable parameters; default Adam with learning rate 1e-3.
        scheduler: called with the optimizer; stepped after every epoch. One that needs ``total_steps`` gets the
            number of steps of the training and is stepped after each of them; any other may return Lightning's
            dictionary form to say otherwise.
        loss_weights: weight of each named term, at least 0; terms that are left out keep their default.
        micro_batch_size: samples to hold in memory at once, at least 1. A batch is processed in pieces of
            this size with exactly the gradient of the whole; None processes it at once.

    Raises:
        ConfigError: an argument is out of its range, or names a term that the method does not have.

    Example:
        >>> class Imitate(Distiller):
        ...     def losses(self, batch):
        ...         gap = self.student(batch["input"]) - self.teacher_output(batch)
        ...         return {"gap": gap.square().mean(1)}
        >>> Imitate(nn.Linear(4, 3), nn.Linear(4, 3)).loss_weights
        {}
    """

    terms: ClassVar[Mapping[str, float]] = {}
    """Names of the loss terms and their default weights. Left empty, every term weighs 1."""
    label_terms: frozenset[str] = frozenset({"hard"})
    """Terms with one value per labelled position; the others have one per valid position."""
    paper: ClassVar[str] = ""
    """Authors, year, title and equation."""
    bibtex: ClassVar[str] = ""
    """The entry that ``kdzoo cite`` prints."""
    teacher_kind: ClassVar[str | None] = "classifier"
    """Kind of the teacher; None for a method that has no teacher."""
    teacher_optional: ClassVar[bool] = False
    """Whether the method also works without its teacher; a run builds one all the same, to compare with."""
    student_kind: ClassVar[str] = "classifier"
    uses_teacher_output: bool = True
    """Whether the teacher enters by ``teacher_answers`` alone (``teacher_output``), so that these can be kept."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract checks (``kdzoo.contracts.CHECKS``) that cannot apply to this method, each with its reason."""
    contract_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings that the contract checks need for this method, by dotted key, as ``{"distiller.layers": ...}``."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        optimizer: OptimizerFactory = DEFAULT_OPTIMIZER,
        scheduler: SchedulerFactory | None = None,
        loss_weights: Mapping[str, float] | None = None,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if self.teacher_kind is not None and teacher is None and not self.teacher_optional:
            raise ConfigError(f"{type(self).__name__} needs a teacher ({self.teacher_kind}), got teacher=None")
        if micro_batch_size is not None and (type(micro_batch_size) is not int or micro_batch_size < 1):
            raise ConfigError(f"micro_batch_size must be at least 1 or None, got {micro_batch_size!r}")
        self.student = student
        self.teacher = teacher
        self.micro_batch_size = micro_batch_size
        self.loss_weights = _merge_weights(self.terms, loss_weights or {})
        self.teacher_cache: dict[str, TeacherOutputs] = {}
        """The teacher's answers to all samples of the parts ``train`` and ``val``, where they are kept."""
        self._part: str | None = None  # that of the step which is being done
        self.last_terms: dict[str, Tensor] = {}
        self.notes: dict[str, str] = {}
        """What the method chose by itself and why, by subject; shown when the training ends."""
        self._optimizer, self._scheduler = optimizer, scheduler
        self._validation = RunningMeans()
        self._freeze_teacher()

    @classmethod
    def kinds(cls, settings: Mapping[str, Any]) -> tuple[str | None, str]:  # noqa: ARG003
        """Return the kinds of teacher and student, which may depend on the method's settings."""
        return cls.teacher_kind, cls.student_kind

    # ---------------------------------------------------------------- what a method writes

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms of one batch, each a tensor of values, one per position.

        A scalar stands for the mean over the samples of the batch.
        """

    def prepare(self, batch: Batch) -> None:
        """Build what depends on the sizes of a batch, once, before the optimizer is made."""

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data that the student learns from: ``data``, unless the method makes its own.

        A run calls it after the teacher is trained; with a plain Lightning trainer, call it yourself.
        """
        return data

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """Other settings of this method under which the same student is trained too, by its name in the report."""
        return {}

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return other students of the same transfer set, by name, that the report holds beside this one."""
        return {}

    def measurements(self, model: nn.Module, batches: Iterable[Any], measure: Measure) -> dict[str, float]:  # noqa: ARG002
        """Return metrics that only this method can measure after the training, by name, beside those of the kind.

        Args:
            model: the student, or a control that nobody taught.
            batches: the test part.
            measure: returns those metrics of the kind that are quick.
        """
        return {}

    def figures(self, folder: Path) -> list[Path]:  # noqa: ARG002
        """Draw what only this method can show, after the training; return the files."""
        return []

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that are optimized: all but the teacher's and the frozen ones."""
        for name, parameter in self.named_parameters():
            if not name.startswith("teacher.") and parameter.requires_grad:
                yield parameter

    # ---------------------------------------------------------------- the teacher

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Return what the losses need of the teacher, one row for each sample of the batch, by name."""
        assert self.teacher is not None
        return {"output": self.teacher(batch["input"])}

    @property
    def cache_key(self) -> Mapping[str, Any]:
        """Settings, as plain values, that ``teacher_outputs`` depends on: kept answers are used again for the same ones."""
        return {}

    @final
    def teacher_answers(self, batch: Batch) -> TeacherOutputs:
        """Return ``teacher_outputs`` without gradient, in a step of a training from the cache where there is one."""
        kept = self.teacher_cache.get(self._part or "")
        if kept is not None:
            rows, device = batch["index"].cpu(), batch["input"].device
            return {name: answer[rows].to(device) for name, answer in kept.items()}
        with torch.no_grad():
            return self.teacher_outputs(batch)

    @final
    def teacher_output(self, batch: Batch) -> Tensor:
        """Return the teacher's output for a batch without gradient, from the cache where there is one."""
        return self.teacher_answers(batch)["output"]

    def _freeze_teacher(self) -> None:
        if self.teacher is None:
            return
        mine = {id(parameter) for parameter in self.student.parameters()}
        if any(id(parameter) in mine for parameter in self.teacher.parameters()):
            raise ConfigError("teacher and student share parameters; give the student a copy (copy.deepcopy)")
        self.teacher.requires_grad_(False).eval()
        self._register_state_dict_hook(_drop_teacher)
        self.register_load_state_dict_pre_hook(_keep_teacher)

    @final
    def train(self, mode: bool = True) -> "Distiller":
        """Switch the student to training or evaluation; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    # ---------------------------------------------------------------- training

    @final
    def setup(self, stage: str) -> None:
        """Before anything is trained: refuse what cannot be right, on a few samples of the first batch."""
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
        self.dry_run({key: value[:8].to(self.device) for key, value in as_batch(first).items()})

    @final
    def dry_run(self, batch: Batch) -> dict[str, Tensor]:
        """Run ``prepare`` and ``losses`` once without training; refuse what does not fit.

        Raises:
            ConfigError: the losses refuse what the models return, or a weight names an unknown term.
        """
        try:
            with inference(self):
                self.prepare(batch)
                terms = self.losses(batch)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{type(self).__name__} does not fit these models and data: {error}") from error
        _check_weights([name for name, weight in self.loss_weights.items() if weight], terms)
        return terms

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss of the last micro-batch; those before it have left their gradients behind."""
        batch = as_batch(batch)
        *earlier, last = split(batch, self.micro_batch_size)
        whole = None
        if self.micro_batch_size is not None:
            whole = over_ranks(torch.tensor(position_counts(batch), device=self.device)).tolist()
            for parameter in self.trainable():
                parameter.grad = None
        means: dict[str, Tensor] = {}
        for part in earlier:
            self.trainer.strategy.backward(self._loss(part, whole, means), None)
        loss = self._loss(last, whole, means)
        trainer: Any = self.trainer  # Lightning sets log_every_n_steps from outside
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self.last_terms = {name: self.trainer.strategy.reduce(mean) for name, mean in means.items()}
            self.log_dict({f"train/{name}": mean for name, mean in self.last_terms.items()})
        return loss

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Leave the gradients of earlier micro-batches alone; ``training_step`` cleared them first."""
        if self.micro_batch_size is None:
            super().optimizer_zero_grad(*args)

    def _loss(self, part: Batch, whole: list[int] | None, means: dict[str, Tensor]) -> Tensor:
        """Return this part's share of the weighted sum of means, and add its share to ``means``.

        ``whole`` holds the numbers of valid and labelled positions of the batch that this is a part of, over
        all ranks; None means that the part is the whole batch of this rank, and its own counts are right.
        """
        with self.using_cache("train"):
            terms = self.losses(part)
        sums = {name: total(value, n_samples(part)) for name, value in terms.items()}
        counts = self._counts({name: count for name, (_, count) in sums.items()}, part, whole)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for name, (summed, _) in sums.items():
            mean = summed * (self.trainer.world_size / max(counts[name], 1))  # data parallelism averages over ranks
            loss = loss + self.loss_weights.get(name, 1.0) * mean
            if counts[name]:
                means[name] = means.get(name, 0) + mean.detach()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._non_finite(terms, part))
        return loss

    def _counts(self, counts: dict[str, int], part: Batch, whole: list[int] | None) -> dict[str, int]:
        """Return the number of values by which each term is divided, over all parts and ranks."""
        if whole is None:
            summed = over_ranks(torch.tensor(list(counts.values()), device=self.device))
            return dict(zip(counts, summed.tolist(), strict=True))
        positions = position_counts(part)
        for name, count in counts.items():
            expected = positions[name in self.label_terms]
            if count != expected:
                raise ConfigError(
                    "micro_batch_size needs terms with one value per valid position (per labelled one, if named "
                    f"in label_terms); term {name!r} has {count} values for {expected} positions"
                )
        return {name: whole[name in self.label_terms] for name in counts}

    def _non_finite(self, terms: Mapping[str, Tensor], part: Batch) -> str:
        """Return the line that names the first term that is not finite, the step and the samples."""
        where = f"at epoch {self.current_epoch}, step {self.trainer.global_step}"
        index = part.get("index", torch.arange(n_samples(part)))
        for name, value in terms.items():
            bad = ~torch.isfinite(value.detach())
            if bad.any():
                rows = rows_about(bad, part, name in self.label_terms).to(index.device)
                number = float(value.detach()[bad].flatten()[0])
                return f"loss term {name!r} is {number} {where}, samples {index[rows].tolist()[:8]}"
        return f"the weighted sum of {sorted(terms)} is not finite {where}"

    @contextmanager
    def using_cache(self, part: str) -> Iterator[None]:
        """Within it, losses are about samples of ``part``, and the teacher's answers are those that were kept of it."""
        self._part = part
        try:
            yield
        finally:
            self._part = None

    # ---------------------------------------------------------------- validation

    @final
    def on_validation_epoch_start(self) -> None:
        """Start the means of the validation terms."""
        self._validation = RunningMeans()

    @final
    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add the terms of one validation batch."""
        batch = as_batch(batch)
        with self.using_cache("val"):
            self._validation.add(self.losses(batch), n_samples(batch))

    @final
    def on_validation_epoch_end(self) -> None:
        """Log the mean of each term and their weighted sum over the validation part."""
        means = self._validation.means()
        self.log_dict({f"val/{name}": mean for name, mean in means.items()})
        self.log("val/loss", sum(self.loss_weights.get(name, 1.0) * mean for name, mean in means.items()))

    # ---------------------------------------------------------------- optimizer

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer over ``trainable``; a method with several learning rates makes its groups here."""
        return self._optimizer(list(self.trainable()))

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its scheduler."""
        optimizer = self.make_optimizer()
        if self._scheduler is None:
            return optimizer
        needed = inspect.signature(self._scheduler).parameters.get("total_steps")
        if needed is None or needed.default is not inspect.Parameter.empty:
            return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer)}
        steps = 1 if self._trainer is None else self.trainer.estimated_stepping_batches
        schedule = self._scheduler(optimizer, total_steps=max(int(steps), 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _merge_weights(defaults: Mapping[str, float], given: Mapping[str, float]) -> dict[str, float]:
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(f"loss_weights.{name} must be a finite number >= 0, got {weight!r}")
    if defaults:
        _check_weights(given, defaults)
    return {**defaults, **given}


def _check_weights(given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"loss_weights.{unknown[0]} is no term of this distiller; its terms: {sorted(known)}")


def _drop_teacher(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001
    """Leave the teacher out of a distiller's state (a state-dict hook)."""
    for key in [key for key in state if key.startswith(f"{prefix}teacher.")]:
        del state[key]


def _keep_teacher(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a state be loaded strictly without the teacher, which stays as it is (a pre-load hook)."""
    assert isinstance(module.teacher, nn.Module)
    state.update(module.teacher.state_dict(prefix=f"{prefix}teacher."))
