"""One training: a distiller, its data and a Lightning trainer that can be interrupted anywhere."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from kdzoo import config
from kdzoo.core.abilities import HasLearnedSizes
from kdzoo.core.base import Distiller
from kdzoo.errors import CheckpointError, ConfigError, NonFiniteLossError
from kdzoo.runs import snapshots
from kdzoo.runs.progress import Progress, print_line
from kdzoo.runs.resume import ExactResume, signals_wait_for_step
from kdzoo.runs.snapshots import Draw
from kdzoo.storage import checked_json
from kdzoo.storage.checkpoint import AtomicCheckpointIO, read_checkpoint
from kdzoo.storage.run_folder import is_main_process

HISTORY_FILE = "history.json"
"""The history of a finished training, in the folder of its checkpoint."""


class History(pl.Callback):
    """Record the loss terms of every logged step and the validation metrics of every epoch; saved with checkpoints.

    Attributes:
        steps: Numbers of the logged steps, from 1; numbers of batches for methods without an optimizer.
        terms: The mean of each loss term at these steps; None where a term has no value.
        validation: The epoch and the validation metrics after it.
        seconds: Wall time of the training so far, over all restarts.
        cpu_seconds: CPU time of this process in the training so far.
        snapshots: Drawings of the student after 1, 2, 4, 8, ... epochs and the last one, by the number of epochs
            (:func:`kdzoo.runs.snapshots.pack`).

    Args:
        snapshot: Draws the student; None: nothing is drawn.
    """

    def __init__(self, snapshot: Draw | None = None) -> None:
        self.snapshot = snapshot
        self.snapshots: dict[str, snapshots.Packed] = {}
        self.steps: list[int] = []
        self.terms: dict[str, list[float | None]] = {}
        self.validation: list[dict[str, float]] = []
        self.seconds = self.cpu_seconds = 0.0
        self._started = self._clocks()

    def on_train_start(self, *_: Any) -> None:
        """Start the clocks, so that the time before the first step is not counted."""
        self._started = self._clocks()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Record the terms that the distiller logged at this step."""
        if not module.last_terms:
            return
        # A method without an optimizer makes no optimizer steps, but processes batches.
        self.steps.append(trainer.global_step or trainer.fit_loop.total_batch_idx + 1)
        for name in {**self.terms, **module.last_terms}:
            # A term that appears for the first time has had no value at the steps before.
            values = self.terms.setdefault(name, [None] * (len(self.steps) - 1))
            values.append(float(module.last_terms[name]) if name in module.last_terms else None)
        module.last_terms = {}

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ARG002
        """Record the validation metrics of this epoch.

        Not in ``on_validation_epoch_end``: Lightning calls the callbacks' before the distiller's, which logs them.
        """
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.validation.append({"epoch": trainer.current_epoch, **metrics})

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Draw the student if twice as many epochs have passed as at the last drawing."""
        if (trainer.current_epoch + 1).bit_count() == 1:  # a power of 2
            self._draw(trainer.current_epoch + 1, module.student)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Draw the trained student."""
        self._draw(trainer.current_epoch, module.student)

    def _draw(self, epochs: int, student: nn.Module) -> None:
        images = self.snapshot(student) if self.snapshot is not None else None
        if images is not None:
            self.snapshots[str(epochs)] = snapshots.pack(images)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, with the wall and CPU time of the training up to now."""
        wall, cpu = (now - start for now, start in zip(self._clocks(), self._started, strict=True))
        return {
            "steps": self.steps,
            "terms": self.terms,
            "validation": self.validation,
            "seconds": self.seconds + wall,
            "cpu_seconds": self.cpu_seconds + cpu,
            "snapshots": self.snapshots,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the history of an interrupted training."""
        self.steps, self.terms = list(state["steps"]), dict(state["terms"])
        self.validation = list(state["validation"])
        self.seconds, self.cpu_seconds = state["seconds"], state.get("cpu_seconds", 0.0)
        self.snapshots = dict(state.get("snapshots", {}))

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


@dataclass(frozen=True)
class Training:
    """The settings of one training.

    Attributes:
        settings: Arguments of ``pytorch_lightning.Trainer``.
        folder: Folder of ``last.ckpt``; an interrupted training in it is continued.
        seed: Seed of the random state of every step.
        label: The name in messages and in the line that the training leaves on the terminal.
        stage: What the progress display says while it runs; the label if empty.
        every_n_steps: Save a checkpoint also every so many optimizer steps; None saves at the end of epochs only.
        snapshot: Draws the student now and then; None: it is not drawn.
        callbacks: Further Lightning callbacks.
        loggers: Lightning loggers.
        hyperparameters: What the loggers show as the settings of the training.
    """

    settings: Mapping[str, Any]
    folder: Path
    seed: int
    label: str
    stage: str = ""
    every_n_steps: int | None = None
    snapshot: Draw | None = None
    callbacks: list[pl.Callback] = field(default_factory=list)
    loggers: list[Any] = field(default_factory=list)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def fit(distiller: Distiller, data: pl.LightningDataModule, training: Training) -> History:
    """Train ``distiller`` to the end, from the start or from where it was interrupted.

    The history of the whole training is written to ``HISTORY_FILE`` beside the checkpoint.

    Raises:
        Interrupted: A signal has arrived; the checkpoint holds the last complete step.
        KdzooError: A loss term is not finite, a checkpoint is corrupt, the disk is full.
    """
    checkpoint = training.folder / "last.ckpt"
    history = History(training.snapshot)
    if checkpoint.exists():
        step = _check_fits(checkpoint, distiller)
        if is_main_process():
            print_line(f"{training.label}: continues after step {step:,}")
    with _quiet_lightning(), signals_wait_for_step():
        with config.reraise_as_config_error("pytorch_lightning.Trainer", MisconfigurationException):
            trainer = pl.Trainer(
                **training.settings,
                callbacks=[
                    history,
                    Progress(training.label, training.stage or training.label),
                    *training.callbacks,
                    # Last, so that a checkpoint holds what the other callbacks have done at the same hook.
                    ExactResume(checkpoint, training.seed, training.every_n_steps),
                ],
                logger=training.loggers or False,
                plugins=[AtomicCheckpointIO()],
                default_root_dir=training.folder,
                # Lightning's own checkpoints only if the user has asked for them with a callback.
                enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in training.callbacks),
                enable_model_summary=False,
                enable_progress_bar=False,
                use_distributed_sampler=False,  # the data's own sampler shares batches among ranks
            )
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(training.hyperparameters))
        try:
            trainer.fit(distiller, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None)
        except MisconfigurationException as error:
            raise ConfigError(f"{training.label}: {config.one_line(error)}") from error
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"{training.label}: {error}") from error
    final = history.state_dict()
    history.seconds, history.cpu_seconds = final["seconds"], final["cpu_seconds"]
    if is_main_process():
        checked_json.write(training.folder / HISTORY_FILE, final)
    return history


def fit_in_run(distiller: Distiller, data: pl.LightningDataModule, training: Training) -> History:
    """Train as :func:`fit` does, and leave the models in float32, in which they are measured and exported."""
    history = fit(distiller, data, training)
    # Lightning leaves models in the type that they were trained in, such as float64, and data come in float32.
    if str(training.settings.get("precision", "")).endswith("-true"):
        distiller.float()
    return history


def _check_fits(checkpoint: Path, distiller: Distiller) -> int:
    """Return the step after which a checkpoint was saved, or reject one of another architecture in one line."""
    content = read_checkpoint(checkpoint)
    saved = content["state_dict"]
    # A student whose sizes are found during the run takes those of the checkpoint.
    learns_sizes = isinstance(distiller.student, HasLearnedSizes)
    for name, value in distiller.student.state_dict(prefix="student.").items():
        if name not in saved or (saved[name].shape != value.shape and not learns_sizes):
            saved_shape = tuple(saved[name].shape) if name in saved else "nothing"
            raise CheckpointError(
                f"{checkpoint} is of another model: {name} is {saved_shape} there, {tuple(value.shape)} here"
            )
    return int(content["global_step"])


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notes about choices that this module makes on purpose."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The distiller moves batches to the device itself; no data module here overrides that.
        warnings.filterwarnings("ignore", message=".*overridden `transfer_batch_to_device`.*")
        # Data in memory are fastest without workers.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Data without a val split return an empty list.
        warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")
        # A loader may be shorter than the logging interval.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        # The teacher is in eval mode, always.
        warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode.*")
        # The position in the data is restored by ExactResume, not by the loader.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        # A CPU run next to an unused GPU is the user's choice.
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # The run folder holds the checkpoint that is being continued.
        warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
        # A method may compute its student instead of descending a gradient.
        warnings.filterwarnings("ignore", message=".*this fit will run with no optimizer.*")
        # torch 2.13 on Python 3.11 deprecates what Lightning 2.6 still calls for its tree utilities.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            logger.setLevel(level)
