"""A matrix product state from queries as a distiller, and distillation that starts from one."""

import pytest
import pytorch_lightning as pl
import torch

import kdzoo
from kdzoo.data import ArrayData
from kdzoo.distillers import Sketch, SketchedKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP, MPSClassifier

SIZES = {"in_shape": (1, 3, 4), "num_classes": 3}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(80, 1, 3, 4, generator=generator)
    y = torch.arange(80) % 3
    data = ArrayData((x, y), (x[:20], y[:20]), val_size=0, batch_size=16)
    data.setup()
    return data


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return MLP(**SIZES, hidden=[8]).eval()


def student(bond_dim=4):
    torch.manual_seed(1)
    return MPSClassifier(**SIZES, bond_dim=bond_dim)


def fit(distiller, data, epochs=3):
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


def error(model, teacher, data):
    x = data.splits.test[0]
    with torch.no_grad():
        return float((model(x) - teacher(x)).norm() / teacher(x).norm())


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_one_epoch_gives_an_imitation_and_its_cost(method, data, teacher):
    distiller = Sketch(student(), teacher, method=method, samples=40)
    before = error(distiller.student, teacher, data)
    trainer = fit(distiller, data)
    assert trainer.current_epoch == 1
    assert error(distiller.student, teacher, data) < 0.2 * before
    cost = distiller.measurements(distiller.student, [], lambda model, batches: {})
    assert 0 < cost["queries"] < cost["queries_asked"]
    assert cost["query_error"] < 0.5
    assert distiller.measurements(student(), [], lambda model, batches: {}) == {}


def test_only_as_many_samples_as_asked_for_are_kept(data, teacher):
    distiller = Sketch(student(), teacher, samples=20)
    for batch in data.train_eval_dataloader():
        distiller.observe(batch)
    assert torch.equal(torch.cat(distiller.observed["inputs"]), data.splits.train[0][:20])


def test_distillation_starts_from_queries(data, teacher):
    distiller = SketchedKD(student(), teacher, samples=40)
    before = error(distiller.student, teacher, data)
    assert distiller.transfer_set(data) is data
    assert error(distiller.student, teacher, data) < 0.2 * before
    assert "evaluations of the teacher" in distiller.remarks["start"]
    assert dict(distiller.controls) == {"from_noise": {"samples": 0}}


def test_without_samples_it_starts_as_ever(data, teacher):
    distiller = SketchedKD(student(), teacher, samples=0)
    distiller.transfer_set(data)
    assert torch.equal(distiller.student.cores, student().cores)
    assert not distiller.controls


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "guessing"}, "method"),
        ({"samples": 1}, "samples"),
        ({"rank": 0}, "rank"),
        ({"cutoff": 2.0}, "cutoff"),
        ({"domain": [2.0, 1.0]}, "domain"),
        ({"ends": 0}, "ends"),
        ({"budget": 0}, "budget"),
    ],
    ids=["method", "samples", "rank", "cutoff", "domain", "ends", "budget"],
)
def test_arguments(changes, match, teacher):
    with pytest.raises(ConfigError, match=match):
        Sketch(student(), teacher, **changes)


@pytest.mark.parametrize("method", [Sketch, SketchedKD])
def test_another_student_is_refused(method, teacher):
    with pytest.raises(ConfigError, match="matrix product state"):
        method(MLP(**SIZES), teacher)


@pytest.mark.slow
def test_a_run_reports_agreement_and_queries(tmp_path):
    settings = ["distiller=mps_queries", "student.bond_dim=4", "distiller.samples=30", "seed=0", "control=false"]
    small = ["teacher.hidden=[16]", "trainer.max_epochs=2", f"output_dir={tmp_path / 'run'}"]
    report = kdzoo.run(kdzoo.compose(*settings, *small, f"cache_dir={tmp_path / 'cache'}"))
    assert report["fidelity"]["student"]["agreement"] > 0.5
    assert report["student"]["metrics"]["queries"] > 0
