"""Progress of a training on the terminal: a bar while it runs, and a line when it ends."""

import sys
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kdzoo.storage.run_folder import is_main_process

# On standard error, so that the report on standard output can be redirected.
console = Console(stderr=True)
# Wide enough for labels such as "synthetic_set, seed 12345", so that the lines of a run are aligned.
LABEL_WIDTH = 28


class Progress(pl.Callback):
    """Show the epochs and validation metrics in a bar, if there is a terminal, and print a line at the end.

    Args:
        label: The name of the training.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Open the bar."""
        if is_main_process() and sys.stderr.isatty():
            columns = (
                TextColumn(f"{{task.description:<{LABEL_WIDTH}}}"),
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
        """Advance the bar by an epoch."""
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.current_epoch + 1, metrics=_format_metrics(trainer))

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Close the bar; print a line, and one for each note of the method."""
        self._close()
        if is_main_process():
            # Also without a terminal, so that a log file shows what was trained.
            counts = f"{trainer.current_epoch} epochs, {trainer.global_step} steps"
            console.print(f"{self.label:<{LABEL_WIDTH}} {counts}, {_format_metrics(trainer)}", highlight=False)
            for subject, note in module.notes.items():
                console.print(f"  {subject}: {note}", highlight=False)

    def on_exception(self, *_: Any) -> None:
        """Close the bar, since it would leave the cursor hidden."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _format_metrics(trainer: pl.Trainer) -> str:
    """Return the validation loss and, if the method measures it, the accuracy as text."""
    metrics = {name: trainer.callback_metrics.get(name) for name in ("val/loss", "val/accuracy")}
    return ", ".join(f"{name} {float(value):.4g}" for name, value in metrics.items() if value is not None)
