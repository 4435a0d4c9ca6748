"""Sweeps as a method: they lower the loss, bonds adapt, and a failure leaves the student unchanged."""

import pytest
import torch

from kdzoo.config import compose
from kdzoo.contracts.compare import weighted_loss
from kdzoo.contracts.subject import Subject
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import LogitKD, SweepMPS
from kdzoo.distillers.tensor_networks import sweep_mps
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.models import MLP, MPS, PatchMPS
from kdzoo.tensor_networks import two_site
from tests.distillers.tensor_networks.cases import PERCEPTRON_TEACHER

SITES, CLASSES = 6, 3


def teacher() -> MLP:
    torch.manual_seed(1)
    return MLP(in_shape=(SITES,), num_classes=CLASSES, hidden=[8])


def student(**options) -> MPS:
    torch.manual_seed(0)
    return MPS(SITES, CLASSES, 2, **options)


def batch(n: int = 60) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, CLASSES, (n,), generator=generator)
    target[::4] = IGNORE
    return {"input": torch.rand(n, SITES, generator=generator), "target": target}


def swept(distiller: SweepMPS, *batches: dict[str, torch.Tensor]) -> SweepMPS:
    for item in batches:
        distiller.observe(item)
    assert not distiller.solve()
    return distiller


def loss(distiller: SweepMPS, data: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return float(weighted_loss(distiller, data))


def test_a_sweep_lowers_the_loss_that_it_measures():
    distiller, data = SweepMPS(student(), teacher(), bond_dim=4, damping=1e-3), batch()
    before = loss(distiller, data)
    values = [loss(swept(distiller, data), data) for _ in range(3)]
    assert values[0] < before
    assert values[2] < values[0]


def test_terms_are_those_of_logit_distillation():
    chain, network, data = student(), teacher(), batch()
    terms, expected = (method(chain, network, temperature=2.0).losses(data) for method in (SweepMPS, LogitKD))
    for name in ("soft", "hard"):
        torch.testing.assert_close(terms[name], expected[name])


def test_a_sweep_takes_all_batches_of_the_epoch_together():
    data = batch()
    parts = [{key: value[rows] for key, value in data.items()} for rows in (slice(0, 25), slice(25, None))]
    one_batch, two_batches = (SweepMPS(student(), teacher(), bond_dim=3) for _ in range(2))
    swept(one_batch, data)
    swept(two_batches, *parts)
    outputs, expected = two_batches.student(data["input"]), one_batch.student(data["input"])
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert two_batches.observed == {}


def test_bonds_become_as_large_as_the_error_requires():
    small, large = (SweepMPS(student(), teacher(), bond_dim=6, max_error=error) for error in (0.3, 0.0))
    for distiller in (small, large):
        swept(distiller, batch())
    assert small.student.cores.numel() < large.student.cores.numel()
    assert max(large.student.dims.tolist()) == 6
    assert large.notes["bonds"].startswith("2 to 6")


def test_patches_can_be_swept():
    torch.manual_seed(0)
    chain = PatchMPS(in_shape=(1, 4, 4), num_classes=CLASSES, patch=2, bond_dim=2)
    data = {**batch(), "input": torch.rand(60, 1, 4, 4)}
    distiller = SweepMPS(chain, MLP(in_shape=(1, 4, 4), num_classes=CLASSES), bond_dim=4)
    before = loss(distiller, data)
    assert loss(swept(distiller, data), data) < before


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
def test_labels_are_not_needed(labelled):
    data = batch()
    if not labelled:
        del data["target"]
    distiller = swept(SweepMPS(student(), teacher(), bond_dim=4), data)
    assert all(value.isfinite().all() for value in distiller.losses(data).values())


def test_a_failed_decomposition_leaves_the_student_unchanged(monkeypatch):
    distiller, calls = SweepMPS(student(), teacher(), bond_dim=4), []
    before = {name: value.clone() for name, value in distiller.student.state_dict().items()}

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise NonFiniteLossError("the singular value decomposition of a chain failed, and nothing was changed")
        return split(*arguments, **options)

    split = two_site.split_svd
    monkeypatch.setattr(two_site, "split_svd", failing)
    with pytest.raises(NonFiniteLossError, match="nothing was changed"):
        swept(distiller, batch())
    assert len(calls) == 5
    after = distiller.student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_an_epoch_is_a_sweep(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(sweep_mps, "sweep", lambda *arguments, **_: (calls.append(1), arguments[:2])[1])
    Subject(compose("distiller=sweep_mps"), tmp_path).train("counted")
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bond_dim": 0}, "bond_dim must be an integer >= 1, got 0"),
        ({"max_error": 1.0}, r"max_error must be in \[0, 1\), got 1.0"),
        ({"damping": 0.0}, "damping must be finite and > 0, got 0.0"),
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
    ],
    ids=["bond_dim", "max_error", "damping", "iterations"],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SweepMPS(student(), teacher(), **options)


def test_other_students_are_refused():
    with pytest.raises(ConfigError, match=r"student must be a matrix product state .* got MLP"):
        SweepMPS(teacher(), teacher())


def test_a_run_sweeps(small_mps_run):
    run = small_mps_run("sweep_mps", *PERCEPTRON_TEACHER, "distiller.max_error=0.1", "control=false")
    assert max(run.student.dims.tolist()) <= 16
    assert run.report["controls"] == {}
