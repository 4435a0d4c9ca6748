"""A matrix product state distilled into a smaller one by their exact distance."""

import re

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.data import Digits
from kdzoo.distillers import MPSDistance
from kdzoo.errors import ConfigError
from kdzoo.models import MPS, MPSClassifier

SMALL = {"in_shape": (1, 8, 8), "num_classes": 10}


@pytest.fixture(scope="module")
def data():
    data = Digits(train_size=100, val_size=20)
    data.prepare_data()
    data.setup()
    return data


def models(teacher_dim=6, student_dim=2, **options):
    torch.manual_seed(0)
    teacher = MPSClassifier(**SMALL, bond_dim=teacher_dim, noise=2.0, **options)
    return MPSClassifier(**SMALL, bond_dim=student_dim, **options), teacher


def inputs(data):
    return torch.cat([batch["input"] for batch in data.train_eval_dataloader()])


def test_the_loss_is_the_mean_square_error_for_independent_pixels(data):
    student, teacher = models()
    distiller = MPSDistance(student, teacher, start="own")
    assert distiller.transfer_set(data) is data
    term = distiller.losses({})["distance"]
    pixels, generator = inputs(data).flatten(1), torch.Generator().manual_seed(0)
    rows = torch.randint(len(pixels), (20_000, pixels.shape[1]), generator=generator)
    x = pixels.gather(0, rows)
    with torch.no_grad():
        f, g = teacher(x).double(), student(x).double()
    sampled = float((f - g).square().sum() / f.square().sum())
    assert float(term.detach()) == pytest.approx(sampled, rel=0.1)


def test_the_student_starts_as_the_truncated_teacher(data):
    student, teacher = models()
    distiller = MPSDistance(student, teacher)
    distiller.transfer_set(data)
    first = distiller.dry_run({})["distance"]
    error = teacher.truncate(bond_dim=2, inputs=inputs(data))
    assert float(first) == pytest.approx(error**2, rel=1e-4)
    assert int(student.dims.max()) == 2
    x = inputs(data)[:5]
    torch.testing.assert_close(student(x), teacher(x), rtol=1e-4, atol=1e-5)


def test_gradient_descent_gets_nearer_than_truncation(data):
    student, teacher = models()
    distiller = MPSDistance(student.double(), teacher.double())
    distiller.transfer_set(data)
    first = float(distiller.dry_run({})["distance"])
    optimizer = torch.optim.Adam(distiller.trainable(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = distiller.losses({})["distance"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_student_takes_over_the_teachers_order_and_feature_map(data):
    student, teacher = models(order="mutual_information", feature_map="whitened")
    teacher.calibrate(inputs(data))
    distiller = MPSDistance(student, teacher)
    distiller.transfer_set(data)
    assert not torch.equal(student.order, teacher.order)
    distiller.dry_run({})
    assert torch.equal(student.order, teacher.order)
    assert torch.equal(student.feature_map.transform, teacher.feature_map.transform)


def test_a_training_needs_the_marginals_first(data):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, enable_model_summary=False, **quiet)
    with pytest.raises(ConfigError, match=r"call transfer_set\(data\) before fit"):
        trainer.fit(MPSDistance(*models()), data)


def test_a_dry_run_measures_the_inputs_of_its_batch(data):
    student, teacher = models()
    terms = MPSDistance(student, teacher).dry_run({"input": inputs(data)[:8]})
    error = teacher.truncate(bond_dim=2, inputs=inputs(data)[:8])
    assert float(terms["distance"]) == pytest.approx(error**2, rel=1e-4)


MISMATCHED = {
    "student": (nn.Linear(4, 3), MPS(4, 3, 2), "student must be a matrix product state"),
    "teacher": (MPS(4, 3, 2), nn.Linear(4, 3), "teacher must be a matrix product state"),
    "periodic": (
        MPS(4, 3, 2, boundary="periodic"),
        MPS(4, 3, 2),
        "student must have boundary='open', got 'periodic'",
    ),
    "sites": (MPS(4, 3, 2), MPS(5, 3, 2, out_site=2), "n_sites must be the teacher's 5, got 4"),
    "output": (MPS(4, 3, 2, out_site=0), MPS(4, 3, 2), "out_site must be the teacher's 2, got 0"),
    "features": (MPS(4, 3, 2, degree=2), MPS(4, 3, 2), "feature_map must be the teacher's Polynomial with 2 features"),
    "trainable": (
        MPS(4, 3, 2, feature_map="trainable"),
        MPS(4, 3, 2, feature_map="trainable"),
        "feature_map must have no parameters, got Trainable",
    ),
}


@pytest.mark.parametrize(("student", "teacher", "message"), MISMATCHED.values(), ids=MISMATCHED.keys())
def test_models_that_do_not_fit_are_refused(student, teacher, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        MPSDistance(student, teacher)


def test_an_unknown_start_is_refused():
    with pytest.raises(ConfigError, match="start must be one of truncated, own, got 'teacher'"):
        MPSDistance(*models(), start="teacher")


def test_a_run_distils_a_trained_chain(small_mps_run):
    run = small_mps_run("mps_distance", "teacher.bond_dim=5", "control=false")
    assert max(run.student.dims.tolist()) == 3
    assert run.report["controls"] == {}
