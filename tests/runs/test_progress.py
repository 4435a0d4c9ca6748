"""Progress on the terminal: one line for each training, notes of the method, and a bar only on a terminal."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from kdzoo.runs import progress
from kdzoo.runs.progress import Progress

METRICS = {"val/loss": torch.tensor(0.12345), "val/accuracy": torch.tensor(0.5), "val/soft": torch.tensor(1.0)}
TRAINER = SimpleNamespace(max_epochs=4, current_epoch=2, global_step=6, callback_metrics=METRICS)


@pytest.fixture
def printed(monkeypatch):
    """Return what is printed."""
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, width=200))
    return stream


def run(callback, trainer=TRAINER, notes=()):
    callback.on_train_start(trainer)
    callback.on_train_epoch_end(trainer)
    callback.on_train_end(trainer, SimpleNamespace(notes=dict(notes)))


def test_a_training_leaves_one_line_and_its_notes(printed):
    run(Progress("student, seed 0"), notes={"states": "7, by cross-validation"})
    assert printed.getvalue() == (
        "student, seed 0              2 epochs, 6 steps, val/loss 0.1235, val/accuracy 0.5\n"
        "  states: 7, by cross-validation\n"
    )


def test_metrics_that_are_not_measured_are_left_out(printed):
    trainer = SimpleNamespace(**{**vars(TRAINER), "callback_metrics": {"val/loss": torch.tensor(2.0)}})
    run(Progress("x"), trainer)
    assert printed.getvalue().rstrip().endswith("6 steps, val/loss 2")


def test_another_rank_prints_nothing(printed, monkeypatch):
    monkeypatch.setattr(progress, "is_main_process", lambda: False)
    run(Progress("x"))
    assert printed.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_until_the_end(printed, monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: True))
    callback = Progress("x")
    callback.on_train_start(TRAINER)
    callback.on_train_epoch_end(TRAINER)
    (task,) = callback.bar.tasks
    assert (task.total, task.completed, task.fields["metrics"]) == (4, 3, "val/loss 0.1235, val/accuracy 0.5")
    callback.on_exception()
    assert callback.bar is None
    callback.on_exception()  # nothing is left to close
