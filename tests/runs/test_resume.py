"""Interrupted anywhere, by anything, a training ends with the same bits."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

import kdzoo
from kdzoo.contracts.checks import COSINE
from kdzoo.contracts.compare import difference, final_state
from kdzoo.contracts.crashes import Crashes, crash_everywhere
from kdzoo.contracts.subject import Subject
from kdzoo.runs.resume import ExactResume, Interrupted, _StopSignal, stop_between_steps
from kdzoo.storage.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STOPPING = {
    "_target_": "pytorch_lightning.callbacks.EarlyStopping",
    "monitor": "val/loss",
    "patience": 2,
    "min_delta": 10.0,  # no epoch improves so much: it stops after the third
}


def plateau(optimizer):
    """A scheduler that follows a metric: no epoch is good enough for it."""
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, threshold_mode="abs")
    return {"scheduler": scheduler, "monitor": "val/loss"}


def subject_at(folder, **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return Subject(kdzoo.compose("distiller=logit_kd"), folder, allow={f"{__name__}.plateau"}, changes=changes)


def assert_same(one, other):
    assert difference(final_state(one), final_state(other)) is None


def test_each_step_of_each_rank_draws_other_numbers_and_the_same_ones_again(tmp_path):
    callback = ExactResume(tmp_path / "last.ckpt", seed=3)

    def draw(step, rank):
        device, loop = SimpleNamespace(root_device=torch.device("cpu")), SimpleNamespace(batch_progress=None)
        fit_loop = SimpleNamespace(restarting=True, epoch_loop=loop)
        options = {"global_step": step, "global_rank": rank, "strategy": device, "fit_loop": fit_loop}
        callback.on_train_batch_start(SimpleNamespace(optimizers=[None], **options))
        assert not fit_loop.restarting
        return float(torch.rand(()))

    draws = {(step, rank): draw(step, rank) for step in range(3) for rank in range(2)}
    assert len(set(draws.values())) == 6
    assert draw(1, 1) == draws[1, 1]


def test_a_signal_at_another_rank_stops_this_one():
    of_both = {"max": torch.maximum, "min": torch.minimum, "sum": torch.add}
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"),
        reduce=lambda own, reduce_op: of_both[reduce_op](own, torch.tensor(int(signal.SIGTERM))),
    )
    trainer = SimpleNamespace(world_size=2, strategy=strategy)
    assert _StopSignal().signum(trainer) == signal.SIGTERM
    assert _StopSignal().signum(SimpleNamespace(world_size=1)) is None


# ---------------------------------------------------------------- in this process


@pytest.mark.parametrize("every_n_steps", [None, 1, 2])
def test_crashes_at_every_place(every_n_steps, tmp_path):
    """With no saves between epochs, the crashes of an epoch all happen before it is complete."""
    subject = subject_at(tmp_path, distiller__micro_batch_size=6, scheduler=COSINE, trainer__gradient_clip_val=0.5)
    crashes = Crashes()
    whole, again = subject.train("whole"), crash_everywhere(subject, crashes, every_n_steps)
    assert {step for step, _ in crashes.seen} == set(range(7))
    assert_same(whole.checkpoint, again.checkpoint)
    assert whole.history.validation == again.history.validation
    assert [entry["epoch"] for entry in whole.history.validation] == [0, 1]
    assert all("val/loss" in entry for entry in whole.history.validation)
    assert whole.history.steps == again.history.steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"callbacks": {"early": STOPPING}, "trainer__max_epochs": 9}, 9),
        ({"scheduler": {"_target_": f"{__name__}.plateau", "_partial_": True}, "trainer__max_epochs": 3}, 9),
        ({"trainer__max_steps": 4}, 4),
        ({"trainer__check_val_every_n_epoch": 2, "trainer__max_epochs": 3}, 9),
        ({"trainer__limit_train_batches": 2}, 4),
        ({"data__val_size": 0}, 6),
    ],
    ids=["early-stopping", "plateau", "max-steps", "rare-validation", "short-epochs", "no-validation"],
)
def test_what_lightning_does_at_the_end_of_epochs_is_done_once(changes, steps, tmp_path):
    subject = subject_at(tmp_path, **changes)
    whole, again = subject.train("whole"), crash_everywhere(subject, Crashes())
    assert whole.checkpoint["global_step"] == again.checkpoint["global_step"] == steps
    if "trainer__max_steps" in changes:  # a crash after the last step has nothing left to do, nor to note
        keys = ("state_dict", "optimizer_states")
        assert difference([whole.checkpoint[key] for key in keys], [again.checkpoint[key] for key in keys]) is None
    else:
        assert_same(whole.checkpoint, again.checkpoint)


class AtStep(pl.Callback):
    """Do something once, at a hook of a step."""

    def __init__(self, hook, step, action):
        self.count = 0

        def act(trainer, *_, **__):
            if trainer.global_step == step and not self.count:
                self.count += 1
                action()

        setattr(self, hook, act)


class Steps(pl.Callback):
    """Count the steps."""

    count = 0

    def on_train_batch_start(self, *_):
        self.count += 1


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


def test_a_complete_training_trains_nothing(tmp_path):
    for changes in ({}, {"callbacks": {"early": STOPPING}, "trainer__max_epochs": 9}, {"trainer__max_steps": 4}):
        subject = subject_at(tmp_path / str(len(changes)) / next(iter(changes), "plain"), **changes)
        whole, steps = subject.train("one"), Steps()
        again = subject.train("one", steps)
        assert steps.count == 0
        assert_same(whole.checkpoint, again.checkpoint)
        assert difference(whole.distiller.student.state_dict(), again.distiller.student.state_dict()) is None


@pytest.mark.parametrize(
    ("signum", "code", "hook", "step", "kept"),
    [
        (signal.SIGINT, 130, "on_train_batch_start", 1, 2),  # the step is completed
        (signal.SIGTERM, 143, "on_before_optimizer_step", 3, 4),
        (signal.SIGINT, 130, "on_train_batch_end", 2, 2),
        (signal.SIGTERM, 143, "on_train_batch_start", 2, 3),  # the last of an epoch: validation too
        (signal.SIGINT, 130, "on_validation_start", 3, 3),
        (signal.SIGTERM, 143, "on_validation_end", 6, 6),
        (signal.SIGTERM, 143, "on_train_start", 0, 0),
        (signal.SIGINT, 130, "on_train_end", 6, 6),
    ],
)
def test_a_signal_stops_after_the_step(signum, code, hook, step, kept, tmp_path):
    subject = subject_at(tmp_path)
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stop, stop_between_steps():
        subject.train("stopped", AtStep(hook, step, send(signum)))
    assert stop.value.exit_code == code
    assert signal.getsignal(signum) == before
    saved = read_checkpoint(tmp_path / "stopped" / "last.ckpt")
    assert saved["global_step"] == kept
    assert_same(subject.train("whole").checkpoint, subject.train("stopped").checkpoint)


def test_a_second_signal_stops_at_once(tmp_path):
    subject, steps = subject_at(tmp_path), Steps()
    twice = [
        AtStep("on_train_batch_start", 4, send(signal.SIGINT)),
        AtStep("on_after_backward", 4, send(signal.SIGTERM)),
    ]
    with pytest.raises(Interrupted) as stop, stop_between_steps():
        subject.train("stopped", *twice, steps)
    assert stop.value.exit_code == 143
    assert read_checkpoint(tmp_path / "stopped" / "last.ckpt")["global_step"] == 3
    assert steps.count == 5


def receive(signum, reached):
    with stop_between_steps():
        send(signum)()
        reached.append(True)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_of_a_training_stops_at_once(signum):
    reached = []
    with pytest.raises(Interrupted, match=signal.Signals(signum).name):
        receive(signum, reached)
    assert not reached


def test_a_signal_is_not_swallowed_by_a_training_that_is_complete(tmp_path):
    subject = subject_at(tmp_path)
    subject.train("one")
    with pytest.raises(Interrupted), stop_between_steps():
        subject.train("one", AtStep("setup", 0, send(signal.SIGTERM)))


def test_in_another_thread_signals_are_left_to_the_application(tmp_path):
    found = []

    def train():
        with stop_between_steps():
            found.append(subject_at(tmp_path).train("one").checkpoint["global_step"])

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [6]


def test_a_signal_does_not_linger(tmp_path):
    with pytest.raises(Interrupted), stop_between_steps():
        send(signal.SIGINT)()
    with stop_between_steps():
        assert subject_at(tmp_path).train("one").checkpoint["global_step"] == 6


# ---------------------------------------------------------------- real processes

RUN = (
    "seed=0",
    "control=false",
    "data.train_size=300",
    "data.batch_size=16",
    "data.augment={shift: 1}",
    "student.hidden=[24]",
    "student.dropout=0.2",
    "teacher.hidden=[32]",
    "teacher.dropout=0.1",
    "trainer.max_epochs=25",
    "trainer.accumulate_grad_batches=3",
    "checkpoint_every_n_steps=3",
    "scheduler=cosine",
    "callbacks=early_stopping",
)


def start(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "kdzoo", *RUN, f"cache_dir={folder / 'cache'}", f"hydra.run.dir={folder / 'run'}"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def newest(folder, pattern):
    return max((path.stat().st_mtime_ns for path in folder.glob(pattern)), default=0)


def interrupt(folder, pattern, signum):
    """Start the run, send a signal at some moment after the next save of a file, return exit code and stderr."""
    before, process = newest(folder, pattern), start(folder)
    while newest(folder, pattern) == before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.4))
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGTERM in the teacher's training, Ctrl-C and kill -9 in the student's, each by the same command."""
    teacher, student = "cache/teachers/*/last.ckpt", "run/seed_0/checkpoints/student/last.ckpt"
    for pattern, signum, code in ((teacher, signal.SIGTERM, 143), (student, signal.SIGINT, 130), (student, 9, -9)):
        found, errors = interrupt(tmp_path, pattern, signum)
        assert found == code, errors
        if code > 0:
            assert errors.splitlines()[-1].endswith("the same command continues the run")
            assert "Traceback" not in errors
        assert not (tmp_path / "run" / "report.json").exists()
    last = start(tmp_path)
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors

    whole = tmp_path / "whole"
    kdzoo.run(kdzoo.compose(*RUN, f"output_dir={whole}", f"cache_dir={whole / 'cache'}"))
    pairs = [
        (tmp_path / "run" / "seed_0/checkpoints/student", whole / "seed_0/checkpoints/student"),
        *zip(
            sorted((tmp_path / "cache/teachers").iterdir()), sorted((whole / "cache/teachers").iterdir()), strict=True
        ),
    ]
    for one, other in pairs:
        assert_same(read_checkpoint(one / "last.ckpt"), read_checkpoint(other / "last.ckpt"))
    student = "student/model.safetensors"
    assert (tmp_path / "run" / student).read_bytes() == (whole / student).read_bytes()
