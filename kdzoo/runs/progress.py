"""Progress of a run on the terminal or in a notebook: a bar that moves by steps; in a log file, a line now and then."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdzoo.core import progress
from kdzoo.storage.run_folder import is_main_process

# On standard error, so that the report on standard output can be redirected.
console = Console(stderr=True)
# Wide enough for labels such as "synthetic_set, seed 12345", so that the lines of a run are aligned.
LABEL_WIDTH = 28
# A log file shows that the run is alive, and stays readable after a day.
SECONDS_BETWEEN_LINES = 30.0
# Few enough that drawing takes no measurable time, often enough that the bar moves.
REDRAWS_PER_SECOND = 4
# Of the columns of a terminal, the text takes what it needs, and the bar the rest.
MIN_BAR_WIDTH = 4


@dataclass
class Stage:
    """A stage and how far it is.

    Attributes:
        name: What is done.
        total: Number of units until the end; None if it is not known.
        unit: What is counted, in the plural.
        completed: Units that are done.
        note: Remark of the last report.
        first: Units that were done at the first report, such as those before a restart; None before it.
        started: Time of the first report, in seconds.
    """

    name: str
    total: int | None
    unit: str
    completed: int = 0
    note: str = ""
    first: int | None = None
    started: float = field(default_factory=time.monotonic)

    def advance(self, completed: int, note: str) -> None:
        """Store a report. The rate counts from the first one, which holds whatever had to be set up before it."""
        if self.first is None:
            self.first, self.started = completed, time.monotonic()
        self.completed, self.note = completed, note

    def rate(self) -> float | None:
        """Return the units per second since the first report; None while it cannot be told."""
        done, elapsed = self.completed - (self.first or 0), time.monotonic() - self.started
        return done / elapsed if done > 0 and elapsed > 0 else None

    def count(self) -> str:
        """Return how far the stage is, such as ``120 of 468 steps``."""
        if self.total is None:
            return f"{self.completed:,} {self.unit}" if self.completed else ""
        return f"{self.completed:,} of {self.total:,} {self.unit}"

    def speed(self) -> str:
        """Return the rate and the time left, such as ``35.1/s, 0:12 left``; empty while they cannot be told."""
        rate = self.rate()
        if rate is None:
            return ""
        speed = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
        return speed if self.total is None else f"{speed}, {_clock((self.total - self.completed) / rate)} left"


class StageDisplay:
    """Keeps the open stages of a run; its subclasses show the innermost.

    Attributes:
        part: Which part of the whole is running, such as ``seed 2 of 5``; empty if there is only one.
    """

    def __init__(self) -> None:
        self.part = ""
        self.stages: list[Stage] = []

    def begin(self, name: str, total: int | None, unit: str) -> progress.Advance:
        """Open a stage."""
        self.stages.append(Stage(name, total, unit))
        return self.stages[-1].advance

    def end(self) -> None:
        """Close the innermost stage."""
        self.stages.pop()

    @contextmanager
    def open(self) -> Iterator["StageDisplay"]:
        """Show progress inside the ``with`` block."""
        with progress.shown_by(self):
            yield self


class BarDisplay(StageDisplay):
    """Shows the running stage as a bar with its count, rate and time left, for terminals and notebooks."""

    @contextmanager
    def open(self) -> Iterator["StageDisplay"]:
        """Show the bar inside the ``with`` block; it leaves no trace."""
        live = Live(
            get_renderable=self.drawn,
            console=console,
            transient=True,
            refresh_per_second=REDRAWS_PER_SECOND,
            # Standard output and error stay as they are: Hydra and user code may have taken them already.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live, super().open():
            yield self

    def drawn(self) -> RenderableType:
        """Return the bar of the innermost stage, and its note below."""
        if not self.stages:
            return ""
        stage = self.stages[-1]
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1, min_width=MIN_BAR_WIDTH)
        row.add_column(no_wrap=True)
        row.add_column(no_wrap=True)
        bar = ProgressBar(stage.total, stage.completed, pulse=stage.total is None)
        label = Text(f"{self.part}: {stage.name}" if self.part else stage.name)  # not markup: names may have brackets
        row.add_row(label, bar, stage.count(), stage.speed())
        return Group(row, Text(stage.note, style="dim")) if stage.note else row


class LineDisplay(StageDisplay):
    """Prints a line about the running stage every 30 seconds, for log files."""

    @contextmanager
    def open(self) -> Iterator["StageDisplay"]:
        """Print lines inside the ``with`` block, also while a stage reports nothing."""
        is_over = threading.Event()

        def print_lines() -> None:
            while not is_over.wait(SECONDS_BETWEEN_LINES):
                self.print_line()

        thread = threading.Thread(target=print_lines, name="progress", daemon=True)
        thread.start()
        try:
            with super().open():
                yield self
        finally:
            is_over.set()
            thread.join()

    def print_line(self) -> None:
        """Print how far the innermost stage is."""
        stages = list(self.stages)  # the other thread may close a stage meanwhile
        if stages:
            parts = [self.part, stages[-1].name, stages[-1].count(), stages[-1].speed(), stages[-1].note]
            print_line(", ".join(filter(None, parts)))


def print_line(text: str) -> None:
    """Print a line as it is: neither coloured, nor broken at the width of a terminal that a log file does not have."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def displayed() -> Iterator[StageDisplay]:
    """Show the progress of what happens inside the ``with`` block, in the main process only."""
    if not is_main_process():
        yield StageDisplay()
        return
    display = BarDisplay() if console.is_terminal or console.is_jupyter else LineDisplay()
    with display.open():
        yield display


class Progress(pl.Callback):
    """Report the steps of a training, and print a line at its end.

    Args:
        label: The name of the training in the line.
        stage: What the training does, for the display.
    """

    def __init__(self, label: str, stage: str) -> None:
        self.label, self.stage = label, stage
        self._open_stage = ExitStack()
        self._note = ""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Open the stage."""
        self._advance = self._open_stage.enter_context(progress.stage(self.stage, n_batches(trainer), "steps"))

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Report one more batch."""
        per_epoch = trainer.num_training_batches
        before = 0 if per_epoch == float("inf") else trainer.current_epoch * int(per_epoch)
        self._advance(before + batch_idx + 1, self._note)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Remember the metrics for the next report."""
        self._note = _format_metrics(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Close the stage; print a line, and one for each note of the method."""
        self._open_stage.close()
        if is_main_process():
            # Also without a terminal, so that a log file shows what was trained.
            counts = f"{trainer.current_epoch} epochs"
            if trainer.global_step:  # a method that computes its student takes no optimizer steps
                counts += f", {trainer.global_step} steps"
            lines = [f"{self.label:<{LABEL_WIDTH}} {counts}, {_format_metrics(trainer)}"]
            lines += [f"  {subject}: {note}" for subject, note in {**module.notes, **module.warnings}.items()]
            for line in lines:
                print_line(line)

    def on_exception(self, *_: Any) -> None:
        """Close the stage."""
        self._open_stage.close()


def n_batches(trainer: pl.Trainer) -> int | None:
    """Return the number of training batches until the end of a training; None if it has no end."""
    limits = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0 and trainer.num_training_batches != float("inf"):
        limits.append(trainer.max_epochs * int(trainer.num_training_batches))
    if trainer.max_steps >= 0:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits, default=None)


def _format_metrics(trainer: pl.Trainer) -> str:
    """Return the validation loss and, if the method measures it, the accuracy as text."""
    metrics = {name: trainer.callback_metrics.get(name) for name in ("val/loss", "val/accuracy")}
    return ", ".join(f"{name} {float(value):.4g}" for name, value in metrics.items() if value is not None)


def _clock(seconds: float) -> str:
    """Return a time as ``minutes:seconds``, from an hour on as ``hours:minutes:seconds``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
