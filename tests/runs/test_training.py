"""One training: its history, what stops it, and a disk that fills up while it saves."""

import errno
import json
from pathlib import Path

import pytest
import torch

import kdzoo
from kdzoo.contracts.compare import difference, final_state
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import LogitKD
from kdzoo.errors import CheckpointError, ConfigError, NonFiniteLossError, RunFolderError
from kdzoo.runs.training import History
from kdzoo.storage.checkpoint import read_checkpoint


def subject_at(folder, **changes):
    return Subject(kdzoo.compose("distiller=logit_kd"), folder, {f"{__name__}.Breaks"}, changes)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_a_damaged_checkpoint_stops_the_run_and_stays(tmp_path):
    subject = subject_at(tmp_path)
    subject.train("one")
    path = tmp_path / "one" / "last.ckpt"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"data.pkl") + 600] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint at all", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as error:
            subject.train("one")
        assert str(path) in one_line(error)
        assert path.read_bytes() == damaged


def test_a_checkpoint_of_another_architecture(tmp_path):
    subject_at(tmp_path).train("one")
    with pytest.raises(CheckpointError) as error:
        subject_at(tmp_path, **{"student.hidden": [9, 16]}).train("one")
    assert "of another model: student.layers.0.linear.weight is (16, 64) there, (9, 64) here" in one_line(error)


class Breaks(LogitKD):
    """Is not a number from the fifth step on."""

    def losses(self, batch):
        terms = super().losses(batch)
        if self.training and self.trainer.global_step >= 4:
            terms["soft"] = torch.where(batch["index"] % 2 == 0, torch.inf, terms["soft"])
        return terms


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path):
    subject = subject_at(tmp_path, **{"distiller._target_": f"{__name__}.Breaks"})
    with pytest.raises(NonFiniteLossError) as error:
        subject.train("one", every_n_steps=1)
    assert "loss term 'soft' is inf at epoch 1, step 4, samples [" in one_line(error)
    saved = read_checkpoint(tmp_path / "one" / "last.ckpt")
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    subject = subject_at(tmp_path)
    write, calls = Path.write_bytes, []

    def full(path, content):
        if "last.ckpt" in path.name:
            calls.append(path)
            if len(calls) == 3:
                write(path, content[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFolderError) as error:
        subject.train("one", every_n_steps=1)
    monkeypatch.undo()
    assert "the disk is full" in one_line(error)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["last.ckpt"]
    assert read_checkpoint(tmp_path / "one" / "last.ckpt")["global_step"] == 2
    again, whole = subject.train("one"), subject.train("whole")
    assert difference(final_state(again.checkpoint), final_state(whole.checkpoint)) is None


def test_a_wrong_setting_of_the_trainer_is_one_line(tmp_path):
    with pytest.raises(ConfigError) as error:
        subject_at(tmp_path, **{"trainer.accelerator": "abacus"}).train("one")
    assert "invalid accelerator name" in one_line(error)


def step(history, number, **terms):
    """Let a history record the terms of one step."""
    module = type("Module", (), {"last_terms": {name: torch.tensor(value) for name, value in terms.items()}})()
    history.on_train_batch_end(type("Trainer", (), {"global_step": number})(), module)
    assert module.last_terms == {}


def test_a_term_without_a_value_at_a_step_is_none():
    history = History()
    step(history, 1, soft=1.0)
    step(history, 2)  # nothing was logged
    step(history, 3, soft=2.0, hard=3.0)
    step(history, 4, hard=4.0)
    assert history.steps == [1, 3, 4]
    assert history.terms == {"soft": [1.0, 2.0, None], "hard": [None, 3.0, 4.0]}


def test_the_whole_history_is_written_beside_the_checkpoint(tmp_path):
    history = subject_at(tmp_path).train("one").history
    written = json.loads((tmp_path / "one" / "history.json").read_text())
    assert written["steps"] == history.steps
    assert written["terms"] == history.terms
    assert written["validation"] == history.validation
    assert written["seconds"] == history.seconds


def test_steps_without_an_optimizer_are_numbers_of_batches():
    history = History()
    for index in (0, 3):
        module = type("Module", (), {"last_terms": {"kl": torch.tensor(1.0)}})()
        loop = type("Loop", (), {"total_batch_idx": index})()
        history.on_train_batch_end(type("Trainer", (), {"global_step": 0, "fit_loop": loop})(), module)
    assert history.steps == [1, 4]


def test_a_history_continues_and_adds_up_the_time():
    first = History()
    step(first, 1, soft=1.0)
    state = {**first.state_dict(), "seconds": 10.0, "cpu_seconds": 7.0}
    second = History()
    second.load_state_dict(state)
    second.on_train_start()
    step(second, 2, soft=0.5)
    assert second.steps == [1, 2]
    assert second.terms == {"soft": [1.0, 0.5]}
    again = second.state_dict()
    assert 10.0 < again["seconds"] < 11.0
    assert 7.0 <= again["cpu_seconds"] < 8.0
    assert first.steps == [1]


def test_a_limit_that_leaves_no_training_batch_is_an_error(tmp_path):
    with pytest.raises(ConfigError) as error:
        subject_at(tmp_path, **{"trainer.limit_train_batches": 0.001}).train("one")
    assert one_line(error).startswith("one: You requested to check 0.001 of the `train_dataloader`")
