"""Exact resume: an interrupted training continues to bit-identical weights and optimizer state.

Three properties make this possible. The training order is a function of (seed, epoch), so that a position is one
integer. Every step starts from a random state that is a function of (seed, step, rank), so that no random state has to
be saved. And a checkpoint is written, atomically, only between two optimizer steps of an epoch, or between two epochs
after validation, early stopping and schedulers are done.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from kdzoo.core.randomness import mix_seed


class Interrupted(BaseException):
    """A signal has asked the run to stop; a training was saved after its last complete step.

    It derives from BaseException, as KeyboardInterrupt does, so that no ``except Exception`` stops it.

    Attributes:
        exit_code: 128 + the number of the signal, as shells report it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class ExactResume(pl.Callback):
    """Seed every step, set the sampler's position on resume, and save ``last.ckpt`` between steps.

    Args:
        path: The checkpoint file; it is replaced atomically after every epoch.
        seed: Seed of the run, from which the random state of every step is derived.
        every_n_steps: Save also every so many optimizer steps, at least 1; None saves after epochs only.
    """

    def __init__(self, path: Path, seed: int, every_n_steps: int | None = None) -> None:
        self.path, self.seed, self.every_n_steps = path, seed, every_n_steps
        self.position: dict[str, Any] = {"epoch": 0, "start": 0, "stopped": False}

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of its batches trained on, and whether a callback ended the training."""
        return self.position

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Skip the batches that were trained on before; do not train if a callback had ended the training."""
        self.position = checkpoint["callbacks"][self.state_key]
        sampler = trainer.datamodule.train_sampler
        sampler.epoch, sampler.start = self.position["epoch"], self.position["start"]
        trainer.should_stop = self.position["stopped"]
        _set_loop_counters(checkpoint["loops"]["fit_loop"], **self.position)

    def on_train_start(self, *_: Any) -> None:
        """Restore the handler of SIGTERM, which Lightning has replaced by one that exits without saving."""
        if _stop.handler is not None:
            signal.signal(signal.SIGTERM, _stop.handler)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save after the epoch before this one.

        At its end, validation and callbacks that stop the training might still come.
        """
        self._between_epochs(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Make the random state a function of (seed, step, rank)."""
        # Lightning keeps this flag until the end of the epoch, and then skips schedulers that follow a metric.
        trainer.fit_loop.restarting = False
        seed = mix_seed(self.seed, _steps(trainer), trainer.global_rank)
        # torch.manual_seed also formats a stack trace for every kind of device that is not in use: 1 to 2 ms.
        (torch.default_generator if trainer.strategy.root_device.type == "cpu" else torch).manual_seed(seed)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Save every n steps and when a signal has arrived, except after the last batch of an epoch.

        Validation belongs to that step, so the end of the epoch is waited for.
        """
        if trainer.is_last_batch:
            return
        due = self.every_n_steps is not None and _steps(trainer) % self.every_n_steps == 0
        self._save(trainer, {"epoch": trainer.current_epoch, "start": batch_idx + 1}, due, _stop.signum(trainer))

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save the finished training."""
        self._between_epochs(trainer)

    def _between_epochs(self, trainer: pl.Trainer) -> None:
        position = {"epoch": trainer.current_epoch, "start": 0}
        # A training that resumes at the start of an epoch has this checkpoint already.
        is_new = position != {key: self.position[key] for key in position}
        self._save(trainer, position, is_new, _stop.signum(trainer))

    def _save(self, trainer: pl.Trainer, position: dict[str, int], due: bool, signum: int | None) -> None:
        """Save if a checkpoint is due or a signal has arrived; raise Interrupted in the latter case."""
        if due or signum is not None:
            module: Any = trainer.lightning_module
            module.check_finite()  # nothing that came of a loss that was not finite is saved
            self.position = {**position, "stopped": trainer.should_stop}
            trainer.save_checkpoint(self.path)
        if signum is not None:
            raise Interrupted(signum)


def _steps(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps done; without an optimizer, the number of batches."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    return trainer.global_step if trainer.optimizers else batches.total.processed


def _set_loop_counters(loop: dict[str, Any], epoch: int, start: int, stopped: bool) -> None:  # noqa: ARG001
    """Write a position into the counters of Lightning's loops, which are wrong after several restarts."""
    n_begun = epoch + (start > 0)
    epochs = {"ready": n_begun, "started": n_begun, "processed": epoch, "completed": epoch}
    loop["epoch_progress"].update(total=dict(epochs), current=dict(epochs))
    if start == 0:  # otherwise Lightning takes the batches of the epoch before for those of this one
        batches = loop["epoch_loop.batch_progress"]
        batches.update(current=dict.fromkeys(batches["current"], 0), is_last_batch=False)


class _StopSignal:
    """The signal that has asked this process to stop, and the handler that receives it.

    There is one object for the process, since signal handlers belong to the process.
    """

    def __init__(self) -> None:
        self.handler: Any = None
        self.arrived: int | None = None
        self.is_training = False

    def signum(self, trainer: pl.Trainer) -> int | None:
        """Return the signal that has arrived at any rank, so that all ranks stop after the same step."""
        signum = self.arrived or 0
        if trainer.world_size > 1:
            of_rank = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(of_rank, reduce_op="max"))
        return signum or None

    def handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Raise Interrupted at once, unless this is the first signal and a training can complete its step."""
        is_first, self.arrived = self.arrived is None, signum
        if not (is_first and self.is_training):
            raise Interrupted(signum)


_stop = _StopSignal()


@contextmanager
def stop_between_steps() -> Iterator[None]:
    """Within this context, turn SIGINT and SIGTERM into ``Interrupted``.

    A training stops after the current step, anything else at once. A second signal stops everything at once.
    """
    _stop.arrived = None
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {signum: signal.signal(signum, _stop.handle) for signum in signals}
    except ValueError:  # not in the main thread: the application that contains the run handles signals
        yield
        return
    _stop.handler = _stop.handle
    try:
        yield
    finally:
        _stop.handler = _stop.arrived = None
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def signals_wait_for_step() -> Iterator[None]:
    """Within this context, let a signal wait for the end of a step; one that no step has noticed stops the run here."""
    _stop.is_training = True
    try:
        yield
    finally:
        _stop.is_training = False
    if _stop.handler is not None and _stop.arrived is not None:
        raise Interrupted(_stop.arrived)
