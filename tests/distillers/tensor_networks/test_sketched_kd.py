"""Logit distillation that starts from queries: when they are made, that they are made once, and the control."""

import pytest
import torch

from kdzoo.distillers import Sketch, SketchedKD
from kdzoo.errors import ConfigError, KdzooError
from kdzoo.models import MLP
from kdzoo.runs.training import Training
from kdzoo.runs.training import fit as fit_as_a_run
from tests.distillers.tensor_networks.cases import PERCEPTRON_TEACHER, SIZES, relative_error


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_the_student_is_built_when_the_training_starts(method, images, new_chain, perceptron, fit):
    distiller = SketchedKD(new_chain(), perceptron, method=method, samples=40, rank=5)
    inputs = images.splits.test.inputs
    before = relative_error(distiller.student, perceptron, inputs)
    assert distiller.transfer_set(images) is images
    distiller.dry_run({"input": images.splits.train.inputs[:8], "target": images.splits.train.targets[:8]})
    distiller.configure_optimizers()
    # Outside of a training nothing is built.
    assert relative_error(distiller.student, perceptron, inputs) == before
    fit(distiller, images, epochs=0)
    assert relative_error(distiller.student, perceptron, inputs) < 0.2 * before
    assert max(distiller.student.dims.tolist()) <= 5
    assert "evaluations of the teacher" in distiller.notes["start"]
    cost = distiller.report_extras.measurements(distiller.student, [], lambda model, batches: {})
    assert 0 < cost["queries"] < cost["queries_asked"]


def test_the_start_is_what_sketching_builds_from_the_same_inputs(images, new_chain, perceptron, fit):
    sketched = Sketch(new_chain(), perceptron, samples=80)
    distilled = SketchedKD(new_chain(), perceptron, samples=80)
    distilled.transfer_set(images)
    distilled.inputs = torch.cat([batch["input"] for batch in images.train_eval_dataloader()])
    sketched.observed = {"inputs": [distilled.inputs]}
    sketched.solve()
    fit(distilled, images, epochs=0)
    assert distilled.cost == sketched.cost
    torch.testing.assert_close(distilled.student.cores, sketched.student.cores)


def test_the_inputs_are_drawn_by_the_seed(images, new_chain, perceptron):
    drawn = []
    for seed in (0, 0, 1):
        distiller = SketchedKD(new_chain(), perceptron, samples=20, seed=seed)
        distiller.transfer_set(images)
        drawn.append(distiller.inputs)
    known = {tuple(x.flatten().tolist()) for x in images.splits.train.inputs}
    assert len({tuple(x.flatten().tolist()) for x in drawn[0]} & known) == 20
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


class CountingTeacher(MLP):
    """A teacher that counts the samples that it is evaluated for."""

    n_samples = 0

    def forward(self, input):
        self.n_samples += len(input)
        return super().forward(input)


def test_a_resumed_training_does_not_query_the_teacher_again(images, new_chain, tmp_path):
    torch.manual_seed(0)
    teacher = CountingTeacher(**SIZES, hidden=[8]).eval()

    def train(epochs):
        distiller = SketchedKD(new_chain(), teacher, samples=40)
        distiller.transfer_set(images)
        distiller.frozen_teacher.cache["train"] = {"output": torch.zeros(80, 3)}  # so that steps do not evaluate it
        teacher.n_samples = 0
        settings = {"max_epochs": epochs, "accelerator": "cpu"}
        fit_as_a_run(distiller, images, Training(settings, tmp_path, seed=0, label="student"))
        return distiller, teacher.n_samples

    first, n_first = train(1)
    resumed, n_resumed = train(2)
    assert n_first > first.cost["queries"] > 8 >= n_resumed  # the dry run takes eight samples
    assert resumed.cost == first.cost
    assert resumed.notes["start"] == first.notes["start"]


def test_the_budget_limits_the_queries_before_the_first_step(images, new_chain, perceptron, fit):
    distiller = SketchedKD(new_chain(), perceptron, samples=40, budget=10)
    distiller.transfer_set(images)
    with pytest.raises(KdzooError, match="budget=10 evaluations are not enough"):
        fit(distiller, images, epochs=0)


def test_the_inputs_must_be_chosen_first(images, new_chain, perceptron, fit):
    with pytest.raises(ConfigError, match=r"call transfer_set\(data\) before fit"):
        fit(SketchedKD(new_chain(), perceptron), images)


def test_without_samples_the_student_starts_as_it_is(images, new_chain, perceptron, fit):
    distiller = SketchedKD(new_chain(), perceptron, samples=0)
    distiller.transfer_set(images)
    fit(distiller, images, epochs=0)
    assert torch.equal(distiller.student.cores, new_chain().cores)
    assert "start" not in distiller.notes


def test_the_control_is_the_same_method_without_queries(new_chain, perceptron):
    extras = SketchedKD(new_chain(), perceptron).report_extras
    assert dict(extras.controls) == {"from_noise": {"samples": 0}}
    assert not SketchedKD(new_chain(), perceptron, samples=0).report_extras.controls


def test_a_negative_seed_is_refused(new_chain, perceptron):
    with pytest.raises(ConfigError, match="seed must be an integer >= 0, got -1"):
        SketchedKD(new_chain(), perceptron, seed=-1)


def test_a_run_reports_the_queries_and_the_start_from_noise(small_mps_run):
    run = small_mps_run("mps_queries_kd", *PERCEPTRON_TEACHER, "distiller.samples=20", "distiller.budget=100000")
    assert 0 < run.report["student"]["metrics"]["queries"] <= 100_000
    assert run.report["fidelity"]["student"]["agreement"] > 0.5
    assert "from_noise" in run.report["controls"]
