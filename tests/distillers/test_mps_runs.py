"""Whole runs of the methods that make matrix product states, as the command does them, small."""

import pytest
import torch

import kdzoo
from kdzoo.data import Digits
from kdzoo.models import MPSClassifier

SMALL = [
    *("data=digits_labelled", "data.train_size=200", "data.batch_size=20", "seed=0", "trainer.max_epochs=3"),
    *("student.bond_dim=3", "teacher_training.max_epochs=20"),
]
PERCEPTRON = ["teacher=mlp", "teacher.hidden=[8]"]
FEW_QUERIES = ["distiller.samples=20", "distiller.budget=100000"]
RUNS = {
    "relational_kd": ["student=mps", *PERCEPTRON, "distiller.layers={left:layers.0,right:layers.0}", "control=false"],
    "growing_mps": [*PERCEPTRON, "distiller.grow=[[1,5]]", "distiller.cut=[[2,0.1]]", "control=false"],
    "sweep_mps": [*PERCEPTRON, "distiller.max_error=0.1", "control=false"],
    "mps_distance": ["teacher.bond_dim=5", "control=false"],
    "mps_queries": [*PERCEPTRON, *FEW_QUERIES, "control=false"],
    "mps_queries_kd": [*PERCEPTRON, *FEW_QUERIES],
}


def right(model):
    """Share of the test digits that a model recognises."""
    data = Digits(labels_per_class=None)
    data.setup()
    with torch.no_grad():
        found = [model(batch["input"]).argmax(1) == batch["target"] for batch in data.test_dataloader()]
    return float(torch.cat(found).double().mean())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_a_report_and_a_chain(name, tmp_path):
    folder = tmp_path / "run"
    places = [f"output_dir={folder}", f"cache_dir={tmp_path / 'cache'}"]
    report = kdzoo.run(kdzoo.compose(f"distiller={name}", *SMALL, *RUNS[name], *places))
    student = kdzoo.load_student(folder / "student")
    assert isinstance(student, MPSClassifier)
    assert report["distiller"] == name
    assert report["student"]["parameters"] == sum(one.numel() for one in student.parameters())
    assert report["student"]["metrics"]["accuracy"] == pytest.approx(right(student), abs=2e-3)
    drawn = {path.name for path in (folder / "seed_0" / "figures").iterdir()}
    assert {"bond_spectra.png", "sobol_maps.png", "sobol_pairs.png"} <= drawn
    if "queries" in name:
        assert 0 < report["student"]["metrics"]["queries"] <= 100_000
        assert report["fidelity"]["student"]["agreement"] > 0.5
    assert ("from_noise" in report["controls"]) == (name == "mps_queries_kd")
