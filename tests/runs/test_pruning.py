"""A search stops trials that promise less than others, and nothing else."""

from types import SimpleNamespace

import pytest
import torch

from kdzoo.config.processes import SWEEP
from kdzoo.errors import ConfigError, PrunedError
from kdzoo.runs import pruning
from kdzoo.runs.pruning import Pruning
from kdzoo.storage.study import open_study

optuna = pytest.importorskip("optuna")


class Strategy:
    """A strategy of one process, which shows what it was asked to agree on."""

    def reduce_boolean_decision(self, decision, all):
        assert not all
        return decision


def trainer(folder, loss, epoch=0, role="student"):
    metrics = {"val/loss": torch.tensor(loss), "val/kd": torch.tensor(0.0)}
    root = str(folder / "run" / "seed_1" / "checkpoints" / role)
    return SimpleNamespace(
        callback_metrics=metrics, current_epoch=epoch, max_epochs=4, default_root_dir=root, strategy=Strategy()
    )


@pytest.fixture(params=["maximize", "minimize"])
def study(request, tmp_path, monkeypatch):
    """A study in which one trial has ended with a loss of 1 after each of four epochs, and another one runs."""
    monkeypatch.setenv(SWEEP, str(tmp_path))
    settings = SimpleNamespace(initialized=lambda: True, get=lambda: SimpleNamespace(job=SimpleNamespace(num=1)))
    monkeypatch.setattr(pruning, "HydraConfig", settings)
    study = open_study(tmp_path, direction=request.param)
    first = study.ask()
    sign = 1 if request.param == "minimize" else -1
    for epoch in range(8):
        first.report(sign * 1.0, epoch)
    study.tell(first, 0.5)
    study.ask()
    return study


def test_a_run_is_stopped_if_it_is_worse_than_others_were(study, tmp_path):
    callback = Pruning(startup_trials=1)
    callback.on_validation_end(trainer(tmp_path, 0.9), None)
    callback.on_validation_end(trainer(tmp_path, 1.1, epoch=1), None)  # its best value counts
    values = open_study(tmp_path).trials[1].intermediate_values
    assert {epoch: abs(value) for epoch, value in values.items()} == pytest.approx({0: 0.9, 1: 1.1})


def test_a_run_that_is_always_worse_is_stopped(study, tmp_path):
    with pytest.raises(PrunedError, match="pruned after epoch 0"):
        Pruning(startup_trials=1).on_validation_end(trainer(tmp_path, 1.1), None)


@pytest.mark.parametrize("options", [{"startup_trials": 2}, {"startup_trials": 1, "warmup_epochs": 1}], ids=str)
def test_a_trial_is_not_stopped_too_early(options, study, tmp_path):
    Pruning(**options).on_validation_end(trainer(tmp_path, 9.0), None)
    assert len(open_study(tmp_path).trials[1].intermediate_values) == 1


def test_the_epochs_of_a_further_seed_follow_those_of_the_first_one(study, tmp_path):
    (tmp_path / "run" / "seed_0").mkdir(parents=True)
    (tmp_path / "run" / "seed_0" / "result.json").touch()
    Pruning().on_validation_end(trainer(tmp_path, 0.9, epoch=2), None)
    assert list(open_study(tmp_path).trials[1].intermediate_values) == [6]


@pytest.mark.parametrize("role", ["control", "teacher-0123456789"])
def test_other_trainings_are_not_stopped(role, study, tmp_path):
    Pruning(startup_trials=0).on_validation_end(trainer(tmp_path, 9.0, role=role), None)
    assert not open_study(tmp_path).trials[1].intermediate_values


def test_nothing_is_stopped_outside_of_a_search(tmp_path, monkeypatch):
    monkeypatch.delenv(SWEEP, raising=False)
    monkeypatch.chdir(tmp_path)
    Pruning(startup_trials=0).on_validation_end(trainer(tmp_path, 9.0), None)


def test_an_unknown_metric_is_named_with_those_that_exist(study, tmp_path):
    with pytest.raises(ConfigError, match=r"monitor=val/x must be one of val/kd, val/loss"):
        Pruning("val/x").on_validation_end(trainer(tmp_path, 1.0), None)


@pytest.mark.parametrize("options", [{"mode": "up"}, {"startup_trials": -1}, {"warmup_epochs": -1}], ids=str)
def test_wrong_arguments_are_named(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        Pruning(**options)
