"""A matrix product state from queries alone, as a method."""

import pytest
import torch

from kdzoo.distillers import Sketch
from tests.distillers.tensor_networks.cases import PERCEPTRON_TEACHER, relative_error


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_one_epoch_gives_an_approximation_and_its_cost(method, images, new_chain, perceptron, fit):
    distiller = Sketch(new_chain(), perceptron, method=method, samples=40)
    inputs = images.splits.test.inputs
    before = relative_error(distiller.student, perceptron, inputs)
    trainer = fit(distiller, images)
    assert trainer.current_epoch == 1
    assert relative_error(distiller.student, perceptron, inputs) < 0.2 * before
    cost = distiller.report_extras.measurements(distiller.student, [], lambda model, batches: {})
    assert 0 < cost["queries"] < cost["queries_asked"]
    assert cost["query_error"] < 0.5
    assert distiller.observed == {}


def test_only_the_first_samples_of_the_epoch_are_kept(images, new_chain, perceptron):
    distiller = Sketch(new_chain(), perceptron, samples=20)
    for batch in images.train_eval_dataloader():
        distiller.observe(batch)
    assert torch.equal(torch.cat(distiller.observed["inputs"]), images.splits.train.inputs[:20])


def test_the_term_is_the_divergence_of_the_predictions(images, new_chain, perceptron):
    student, inputs = new_chain(), images.splits.test.inputs
    with torch.no_grad():
        (values,) = Sketch(student, perceptron).losses({"input": inputs}).values()
        teacher_log_probs, student_log_probs = (model(inputs).log_softmax(1) for model in (perceptron, student))
    expected = (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(1)
    torch.testing.assert_close(values.to(expected), expected, rtol=1e-4, atol=1e-6)


def test_a_run_reports_the_queries(small_mps_run):
    run = small_mps_run(
        "mps_queries", *PERCEPTRON_TEACHER, "distiller.samples=20", "distiller.budget=100000", "control=false"
    )
    assert 0 < run.report["student"]["metrics"]["queries"] <= 100_000
    assert run.report["fidelity"]["student"]["agreement"] > 0.5
    assert "from_noise" not in run.report["controls"]
