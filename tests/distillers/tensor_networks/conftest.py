"""Data, models and small runs that the tests of methods with matrix product states share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import kdzoo
from kdzoo.data import ArrayData, Digits
from kdzoo.models import MLP, MPSClassifier
from tests.distillers.tensor_networks.cases import SIZES, SMALL_RUN


@pytest.fixture
def images() -> ArrayData:
    """Eighty random images of 12 pixels with three classes, of which the first twenty are the test set too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(80, 1, 3, 4, generator=generator)
    y = torch.arange(80) % 3
    data = ArrayData((x, y), (x[:20], y[:20]), val_size=0, batch_size=16)
    data.setup()
    return data


@pytest.fixture
def perceptron() -> MLP:
    """A small teacher for these images, not trained."""
    torch.manual_seed(0)
    return MLP(**SIZES, hidden=[8]).eval()


@pytest.fixture
def new_chain() -> Callable[..., MPSClassifier]:
    """Return a new student for these images, always the same."""

    def make(bond_dim: int = 4) -> MPSClassifier:
        torch.manual_seed(1)
        return MPSClassifier(**SIZES, bond_dim=bond_dim)

    return make


class FinishedRun(NamedTuple):
    """What a run left: its report, the exported student and the names of the figures."""

    report: dict[str, Any]
    student: MPSClassifier
    figures: set[str]


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., FinishedRun]:
    """Run a method as the command does, on a few digits, and check what holds for every student that is a chain."""

    def run(method: str, *overrides: str) -> FinishedRun:
        folder = tmp_path / "run"
        places = [f"output_dir={folder}", f"cache_dir={tmp_path / 'cache'}"]
        report = kdzoo.run(kdzoo.compose(f"distiller={method}", *SMALL_RUN, *overrides, *places))
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
