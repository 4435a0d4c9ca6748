"""Progress of a run: a bar on a terminal, lines in a log, one line for each training."""

import io
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from kdzoo.core.progress import stage, track
from kdzoo.runs import progress
from kdzoo.runs.progress import BarDisplay, LineDisplay, Progress, Stage, displayed, n_batches

METRICS = {"val/loss": torch.tensor(0.12345), "val/accuracy": torch.tensor(0.5), "val/soft": torch.tensor(1.0)}
TRAINER = SimpleNamespace(
    max_epochs=4,
    max_steps=-1,
    current_epoch=1,
    num_training_batches=3,
    global_step=6,
    accumulate_grad_batches=1,
    callback_metrics=METRICS,
)


@pytest.fixture
def printed(monkeypatch):
    """Replace the console by one that writes into the returned stream."""

    def replace(**options):
        stream = io.StringIO()
        monkeypatch.setattr(progress, "console", Console(file=stream, **{"width": 80, **options}))
        return stream

    return replace


def run(callback, trainer=TRAINER, notes=(), warnings=()):
    """Call the hooks of a training whose second epoch ends."""
    callback.on_train_start(trainer)
    callback.on_validation_end(trainer)
    callback.on_train_batch_end(trainer, None, None, None, 2)
    callback.on_train_end(trainer, SimpleNamespace(notes=dict(notes), warnings=dict(warnings)))


def wait_for(text, stream):
    """Wait until another thread has printed a text."""
    deadline = time.monotonic() + 20
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert text in stream.getvalue()


# ---------------------------------------------------------------- a training


def test_a_training_leaves_one_line_its_notes_and_its_warnings(printed):
    stream = printed()
    notes, warnings = {"states": "7, by cross-validation"}, {"discriminator": "it has won"}
    run(Progress("student, seed 0", "distilling"), notes=notes, warnings=warnings)
    assert stream.getvalue() == (
        "student, seed 0              1 epochs, 6 steps, val/loss 0.1235, val/accuracy 0.5\n"
        "  states: 7, by cross-validation\n"
        "  discriminator: it has won\n"
    )


def test_metrics_that_are_not_measured_are_left_out(printed):
    stream = printed()
    run(Progress("x", "x"), SimpleNamespace(**{**vars(TRAINER), "callback_metrics": {"val/loss": torch.tensor(2.0)}}))
    assert stream.getvalue().rstrip().endswith("6 steps, val/loss 2")


def test_another_rank_shows_nothing(printed, monkeypatch):
    stream = printed(force_terminal=True)
    monkeypatch.setattr(progress, "is_main_process", lambda: False)
    with displayed():
        run(Progress("x", "x"))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 12),
        ({"max_epochs": None, "max_steps": 7}, 7),
        ({"max_epochs": -1, "max_steps": 7, "accumulate_grad_batches": 2}, 14),
        ({"max_epochs": 2, "num_training_batches": float("inf"), "max_steps": 9}, 9),
        ({"max_epochs": -1}, None),
        ({"max_steps": 5}, 5),
        ({"max_steps": 50}, 12),
    ],
)
def test_the_number_of_batches(changes, expected):
    assert n_batches(SimpleNamespace(**{**vars(TRAINER), **changes})) == expected


def test_steps_of_a_training_reach_the_display(printed):
    printed()
    with LineDisplay().open() as display, ExitStack() as end:
        callback = Progress("student, seed 0", "distilling the student")
        callback.on_train_start(TRAINER)
        end.callback(callback.on_exception)
        callback.on_validation_end(TRAINER)
        callback.on_train_batch_end(TRAINER, None, None, None, 1)
        (running,) = display.stages
        assert (running.name, running.count()) == ("distilling the student", "5 of 12 steps")
        assert running.note == "val/loss 0.1235, val/accuracy 0.5"
    assert display.stages == []


# ---------------------------------------------------------------- a stage


def test_rate_and_time_left_count_from_the_first_report(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    running = Stage("training", 1000, "steps")
    assert (running.count(), running.speed()) == ("0 of 1,000 steps", "")
    now[0] += 60  # setting up
    running.advance(400, "")  # continued after a restart
    assert running.speed() == ""
    now[0] += 10
    running.advance(500, "")
    assert running.speed() == "10/s, 0:50 left"
    now[0] += 10
    running.advance(501, "")
    assert running.speed().endswith("5.05/s, 1:39 left")


@pytest.mark.parametrize(
    ("stage_", "count", "speed"),
    [
        (Stage("x", None, "files", completed=3, first=1, started=0.0), "3 files", "0.2/s"),
        (Stage("x", None, "files"), "", ""),
        (Stage("x", 2, "files", completed=4, first=0, started=0.0), "4 of 2 files", "2.5 s each, 0:00 left"),
        (Stage("x", 5000, "files", completed=3, first=1, started=0.0), "3 of 5,000 files", "5 s each, 6:56:25 left"),
    ],
)
def test_a_stage_as_text(stage_, count, speed, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    assert stage_.count() == count
    assert stage_.speed() == speed.replace("0.2/s", "5 s each")


# ---------------------------------------------------------------- displays


def test_a_terminal_has_a_bar_within_80_columns(printed):
    stream = printed(force_terminal=True)
    with displayed() as display:
        assert isinstance(display, BarDisplay)
        display.part = "seed 2 of 5"
        with stage("training the teacher", 46_800) as advance:
            advance(1, "")
            advance(46_000, "val/loss 0.1235, val/accuracy 0.5")
            text = Console(width=80, file=io.StringIO())
            text.print(display.drawn())
            rows = text.file.getvalue().splitlines()
            wait_for("seed 2 of 5", stream)
    assert all(len(row) <= 80 for row in rows)
    assert "seed 2 of 5: training the teacher" in rows[0]
    assert "46,000 of 46,800 steps" in rows[0]
    assert rows[1].strip() == "val/loss 0.1235, val/accuracy 0.5"


def test_a_name_with_brackets_is_not_markup(printed):
    printed(force_terminal=True)
    with displayed() as display, stage("training [/x]", 2):
        text = Console(width=80, file=io.StringIO())
        text.print(display.drawn())
    assert "training [/x]" in text.file.getvalue()


def test_an_endless_epoch_is_counted(printed):
    printed()
    endless = SimpleNamespace(**{**vars(TRAINER), "num_training_batches": float("inf"), "max_steps": 9})
    with LineDisplay().open() as display:
        callback = Progress("x", "x")
        callback.on_train_start(endless)
        callback.on_train_batch_end(endless, None, None, None, 4)
        assert display.stages[0].count() == "5 of 9 steps"
        callback.on_exception()


def test_the_innermost_stage_is_shown(printed):
    printed(force_terminal=True)
    with displayed() as display, stage("training", 2):
        for _ in track([1], "merging states", unit="starts"):
            assert [running.name for running in display.stages] == ["training", "merging states"]
        assert [running.name for running in display.stages] == ["training"]


def test_a_log_file_has_a_line_now_and_then_also_of_a_silent_stage(printed, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    stream = printed(force_terminal=False)
    with displayed() as display:
        assert isinstance(display, LineDisplay)
        display.part = "seed 1 of 2"
        with stage("merging states", 3):
            wait_for("merging states", stream)
    assert stream.getvalue().splitlines()[0] == "seed 1 of 2, merging states, 0 of 3 steps"
    before = stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue() == before  # the display is closed


def test_an_error_closes_the_display(printed):
    stream = printed(force_terminal=True)
    with pytest.raises(ZeroDivisionError), displayed(), stage("dividing"):
        _ = 1 / 0
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is shown again
