"""A matrix product state from queries as a distiller, and distillation that starts from one."""

import pytest
import pytorch_lightning as pl
import torch

from kdzoo.data import ArrayData
from kdzoo.distillers import Sketch, SketchedKD
from kdzoo.errors import ConfigError, KdzooError
from kdzoo.models import MLP, MPSClassifier
from kdzoo.runs.training import Training
from kdzoo.runs.training import fit as fit_as_a_run

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
    x = data.splits.test.inputs
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
    assert torch.equal(torch.cat(distiller.observed["inputs"]), data.splits.train.inputs[:20])


def start(distiller, data):
    """The student as it is before the first step."""
    distiller.transfer_set(data)
    return fit(distiller, data, epochs=0)


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_distillation_starts_from_queries(method, data, teacher):
    distiller = SketchedKD(student(), teacher, method=method, samples=40, rank=5)
    before = error(distiller.student, teacher, data)
    assert distiller.transfer_set(data) is data
    distiller.dry_run({"input": data.splits.train.inputs[:8], "target": data.splits.train.targets[:8]})
    distiller.configure_optimizers()
    assert error(distiller.student, teacher, data) == before  # outside of a training nothing is asked
    start(distiller, data)
    assert error(distiller.student, teacher, data) < 0.2 * before
    assert max(distiller.student.dims.tolist()) <= 5
    assert "evaluations of the teacher" in distiller.notes["start"]
    assert dict(distiller.controls) == {"from_noise": {"samples": 0}}
    cost = distiller.measurements(distiller.student, [], lambda model, batches: {})
    assert 0 < cost["queries"] < cost["queries_asked"]


def test_the_start_is_what_sketching_builds_from_the_same_inputs(data, teacher):
    built, distilled = Sketch(student(), teacher, samples=80), SketchedKD(student(), teacher, samples=80)
    distilled.transfer_set(data)
    distilled.inputs = torch.cat([batch["input"] for batch in data.train_eval_dataloader()])
    built.observed = {"inputs": [distilled.inputs]}
    built.solve()
    fit(distilled, data, epochs=0)
    assert distilled.cost == built.cost
    torch.testing.assert_close(distilled.student.cores, built.student.cores)


class Counted(MLP):
    """A teacher that counts the samples it is shown."""

    seen = 0

    def forward(self, input):
        self.seen += len(input)
        return super().forward(input)


def test_a_continued_training_does_not_ask_again(data, tmp_path):
    torch.manual_seed(0)
    known = Counted(**SIZES, hidden=[8]).eval()

    def train(epochs):
        distiller = SketchedKD(student(), known, samples=40)
        distiller.transfer_set(data)
        distiller.teacher_cache["train"] = {"output": torch.zeros(80, 3)}  # so that steps do not ask
        known.seen = 0
        settings = {"max_epochs": epochs, "accelerator": "cpu"}
        fit_as_a_run(distiller, data, Training(settings, tmp_path, seed=0, label="student"))
        return distiller, known.seen

    first, asked = train(1)
    then, asked_again = train(2)
    assert asked > first.cost["queries"] > 8 >= asked_again  # the rehearsal looks at eight samples
    assert then.cost == first.cost
    assert then.notes["start"] == first.notes["start"]


def test_a_budget_holds_for_the_start(data, teacher):
    distiller = SketchedKD(student(), teacher, samples=40, budget=10)
    with pytest.raises(KdzooError, match="budget"):
        start(distiller, data)


def test_the_inputs_must_be_chosen_first(data, teacher):
    with pytest.raises(ConfigError, match=r"call transfer_set\(data\) before fit"):
        fit(SketchedKD(student(), teacher), data)


def test_without_samples_it_starts_as_ever(data, teacher):
    distiller = SketchedKD(student(), teacher, samples=0)
    start(distiller, data)
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
@pytest.mark.parametrize("method", [Sketch, SketchedKD], ids=["alone", "distilled"])
def test_arguments(method, changes, match, teacher):
    with pytest.raises(ConfigError, match=match):
        method(student(), teacher, **changes)


@pytest.mark.parametrize("method", [Sketch, SketchedKD])
def test_another_student_is_refused(method, teacher):
    with pytest.raises(ConfigError, match="matrix product state"):
        method(MLP(**SIZES), teacher)
