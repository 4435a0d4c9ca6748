"""Loggers of single trainings: named, ended with their training, and without a network."""

import sqlite3
import sys
from types import ModuleType, SimpleNamespace

import pytest

import kdzoo
from kdzoo.runs import loggers


@pytest.fixture
def wandb_runs(monkeypatch):
    """Replace wandb by a stand-in; return the runs that it has started, with their arguments and exit codes."""
    runs = []

    class Run(SimpleNamespace):
        def finish(self, exit_code):
            self.exit_code = exit_code

    def init(**options):
        runs.append(Run(options=options, exit_code=None))
        return runs[-1]

    for name in ("wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.wandb_run"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["wandb"].__dict__.update(init=init, Settings=lambda **options: options, run=None)
    sys.modules["wandb.sdk.lib"].RunDisabled = type("RunDisabled", (), {})
    sys.modules["wandb.wandb_run"].Run = type("Run", (), {})
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", True)
    return runs


def test_each_training_is_an_offline_run_of_its_own(wandb_runs, tmp_path):
    for role, status in (("student", "success"), ("control", "failed")):
        logger = loggers.WandbLogger(str(tmp_path / "seed_0" / "checkpoints" / role), group="first")
        assert logger.experiment is logger.experiment
        logger.finalize(status)
    assert [run.options["name"] for run in wandb_runs] == ["seed_0/student", "seed_0/control"]
    assert [run.exit_code for run in wandb_runs] == [0, 1]
    options = wandb_runs[0].options
    assert (options["mode"], options["project"], options["group"]) == ("offline", "kdzoo", "first")
    assert "anonymous" not in options
    assert (tmp_path / "seed_0" / "checkpoints" / "student").is_dir()
    assert loggers.WandbLogger(str(tmp_path), offline=False)._wandb_init["mode"] == "online"


def test_a_logger_that_has_logged_nothing_starts_no_run(wandb_runs, tmp_path):
    loggers.WandbLogger(str(tmp_path)).finalize("success")
    assert wandb_runs == []


def test_wandb_itself_writes_its_files_into_the_folder_of_the_training(tmp_path):
    pytest.importorskip("wandb")
    logger = loggers.WandbLogger(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_mlflow_writes_into_the_database_of_the_run(tmp_path):
    pytest.importorskip("mlflow")
    database = tmp_path / "run" / "mlflow.db"
    for role in ("student", "control"):
        folder = tmp_path / "run" / "seed_0" / "checkpoints" / role
        logger = loggers.MLFlowLogger(str(folder), tracking_uri=f"sqlite:///{database}")
        logger.log_metrics({"loss": 1.0}, step=1)
        logger.finalize("success")
    rows = sqlite3.connect(database).execute("select name, status from runs").fetchall()
    assert sorted(rows) == [("seed_0/control", "FINISHED"), ("seed_0/student", "FINISHED")]


def test_several_loggers_write_metrics_and_settings_of_every_training(settings, tmp_path):
    pytest.importorskip("tensorboard")
    kdzoo.run(settings("logger=[csv,tensorboard]"))
    folder = tmp_path / "run" / "seed_0" / "checkpoints" / "student"
    assert "val/loss" in (folder / "csv" / "version_0" / "metrics.csv").read_text()
    assert "train_size: 40" in (folder / "csv" / "version_0" / "hparams.yaml").read_text()
    assert list(folder.glob("tensorboard/version_0/events.*"))
