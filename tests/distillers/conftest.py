"""Helpers that the tests of all methods share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch

import kdzoo
from kdzoo.core.base import Distiller
from kdzoo.data import Digits
from kdzoo.models import MPSClassifier

Fit = Callable[..., pl.Trainer]
# Settings of a whole run into a matrix product state: a few digits and three epochs.
SMALL_MPS_RUN = [
    *("data=digits_labelled", "data.train_size=200", "data.batch_size=20", "seed=0", "trainer.max_epochs=3"),
    *("student.bond_dim=3", "teacher_training.max_epochs=20"),
]


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Train a distiller with a plain Lightning trainer on the CPU, without logs, checkpoints and progress bars."""

    def train(distiller: Distiller, data: pl.LightningDataModule, epochs: int = 3) -> pl.Trainer:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(distiller, datamodule=data)
        return trainer

    return train


class FinishedRun(NamedTuple):
    """What a run left: its report, the exported student and the names of the figures."""

    report: dict[str, Any]
    student: MPSClassifier
    figures: set[str]


@pytest.fixture
def small_mps_run(tmp_path: Path) -> Callable[..., FinishedRun]:
    """Run a method as the command does, on a few digits, and check what holds for every student that is a chain."""

    def run(method: str, *overrides: str) -> FinishedRun:
        folder = tmp_path / "run"
        places = [f"output_dir={folder}", f"cache_dir={tmp_path / 'cache'}"]
        report = kdzoo.run(kdzoo.compose(f"distiller={method}", *SMALL_MPS_RUN, *overrides, *places))
        student = kdzoo.load_student(folder / "student")
        assert isinstance(student, MPSClassifier)
        assert report["distiller"] == method
        assert report["student"]["parameters"] == sum(parameter.numel() for parameter in student.parameters())
        assert report["student"]["metrics"]["accuracy"] == pytest.approx(accuracy_on_digits(student), abs=2e-3)
        figures = {path.name for path in (folder / "seed_0" / "figures").iterdir()}
        assert {"bond_spectra.png", "sobol_maps.png", "sobol_pairs.png"} <= figures
        return FinishedRun(report, student, figures)

    return run


def accuracy_on_digits(model: torch.nn.Module) -> float:
    """Share of the test digits that a model classifies correctly."""
    data = Digits(labels_per_class=None)
    data.setup()
    with torch.no_grad():
        correct = [model(batch["input"]).argmax(1) == batch["target"] for batch in data.test_dataloader()]
    return float(torch.cat(correct).double().mean())
