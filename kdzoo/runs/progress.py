"""Progress of a training on the terminal: one bar a training, one line when it ends."""

import sys
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kdzoo.storage.run_folder import is_main_process

console = Console(stderr=True)


class Progress(pl.Callback):
    """Show epochs and the validation metrics, refreshed once an epoch; a plain line where there is no terminal."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Open the bar."""
        if is_main_process() and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, console=console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(
                self.label, total=trainer.max_epochs, completed=trainer.current_epoch, metrics=""
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Advance by an epoch."""
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.current_epoch + 1, metrics=_brief(trainer))

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Close the bar and leave a line, and one for each note of the method."""
        self._close()
        if is_main_process():
            line = f"{self.label:<28} {trainer.current_epoch} epochs, {trainer.global_step} steps, {_brief(trainer)}"
            console.print(line, highlight=False)
            for subject, note in module.notes.items():
                console.print(f"  {subject}: {note}", highlight=False)

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal is left in order."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _brief(trainer: pl.Trainer) -> str:
    """Return the validation loss and, where a method measures it, the accuracy."""
    shown = {name: trainer.callback_metrics.get(name) for name in ("val/loss", "val/accuracy")}
    return ", ".join(f"{name} {float(value):.4g}" for name, value in shown.items() if value is not None)
