"""Interruptions at every step of a training."""

from typing import Any

import pytorch_lightning as pl

from kdzoo.contracts.subject import Subject, Trained


class CrashError(Exception):
    """Thrown by :class:`Crashes`."""


class Crashes(pl.Callback):
    """Crash once at every place of every step, wherever the training is taken up again."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, str]] = set()

    def _once(self, trainer: pl.Trainer, place: str) -> None:
        here = (trainer.global_step, place)
        if here not in self.seen:
            self.seen.add(here)
            raise CrashError(f"{place} of step {trainer.global_step}")

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before a step."""
        self._once(trainer, "start")

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash when the gradient is known."""
        self._once(trainer, "update")

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before validation."""
        self._once(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash at the end of an epoch."""
        self._once(trainer, "end of the epoch")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash when everything is trained."""
        self._once(trainer, "end")


def crash_everywhere(subject: Subject, crashes: Crashes, every_n_steps: int | None = 1) -> Trained:
    """Train to the end, starting again after every crash."""
    while True:
        try:
            return subject.train("interrupted", crashes, every_n_steps=every_n_steps)
        except CrashError:
            continue
