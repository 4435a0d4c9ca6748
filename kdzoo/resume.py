"""Exact resume: an interrupted training continues to bit-identical weights and optimizer state.

Three things make it so. The training order is a pure function of (seed, epoch), so that a position is one
integer. Every step starts from a random state that is a pure function of (seed, step, rank), so that no
random state has to be saved. And a checkpoint is written only between two optimizer steps, atomically.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from kdzoo.data.randomness import mix_seed


class Interrupted(BaseException):
    """A signal asked the run to stop; the state was saved after the last complete step."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class ExactResume(pl.Callback):
    """Reseed every step, place the sampler on resume, and save ``last.ckpt`` between steps.

    Args:
        path: the checkpoint file; it is replaced atomically at the end of every epoch.
        seed: seed of the run, from which the random state of every step is derived.
        every_n_steps: save also every so many optimizer steps, at least 1; None: at the end of epochs only.
    """

    def __init__(self, path: Path, seed: int, every_n_steps: int | None = None) -> None:
        self.path, self.seed, self.every_n_steps = path, seed, every_n_steps
        self.position = {"epoch": 0, "start": 0}

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that have been trained on."""
        return self.position

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Skip the batches that the checkpoint has seen."""
        sampler, position = trainer.datamodule.train_sampler, checkpoint["callbacks"][self.state_key]
        sampler.epoch, sampler.start = position["epoch"], position["start"]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Make the random state a function of (seed, step, rank)."""
        torch.manual_seed(mix_seed(self.seed, trainer.global_step, trainer.global_rank))

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Save at the end of an epoch, every n steps, and when a signal has arrived; then leave."""
        epoch = trainer.current_epoch
        last = trainer.is_last_batch
        self.position = {"epoch": epoch + 1, "start": 0} if last else {"epoch": epoch, "start": batch_idx + 1}
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if last or due or _arrived:
            trainer.save_checkpoint(self.path)
        if _arrived:
            raise Interrupted(_arrived[0])


_arrived: list[int] = []


@contextmanager
def stop_between_steps() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a stop after the current step; a second signal stops at once."""

    def remember(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if _arrived:
            raise KeyboardInterrupt
        _arrived.append(signum)

    _arrived.clear()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {signum: signal.signal(signum, remember) for signum in signals}
    except ValueError:  # not in the main thread: the application that embeds the run handles signals
        yield
        return
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _arrived.clear()
