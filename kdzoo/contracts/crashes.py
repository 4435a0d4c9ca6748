"""Interruptions at every step of a training."""

from typing import Any

import pytorch_lightning as pl

from kdzoo.contracts.subject import Subject, Trained


class CrashError(Exception):
    """Raised by :class:`Crashes` in place of a power failure."""


class Crashes(pl.Callback):
    """Crash once at every hook of every step, also after the training was restarted.

    Attributes:
        seen: The step and the name of every place at which the training has crashed.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[int, str]] = set()

    def _crash_once(self, trainer: pl.Trainer, place: str) -> None:
        step_and_place = (trainer.global_step, place)
        if step_and_place not in self.seen:
            self.seen.add(step_and_place)
            raise CrashError(f"{place} of step {trainer.global_step}")

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before a step."""
        self._crash_once(trainer, "start")

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash after the gradient was computed."""
        self._crash_once(trainer, "update")

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before validation."""
        self._crash_once(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash at the end of an epoch."""
        self._crash_once(trainer, "end of the epoch")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash after the last step."""
        self._crash_once(trainer, "end")


def crash_everywhere(subject: Subject, crashes: Crashes, every_n_steps: int | None = 1) -> Trained:
    """Train to the end, starting again after every crash."""
    while True:
        try:
            return subject.train("interrupted", crashes, every_n_steps=every_n_steps)
        except CrashError:
            continue
