"""The base of the methods that build a matrix product state from queries: arguments, cost and checkpoints."""

import pytest
import torch

from kdzoo.distillers import Sketch, SketchedKD
from kdzoo.distillers.tensor_networks.query_distiller import QueryCost
from kdzoo.errors import ConfigError
from kdzoo.models import MLP
from kdzoo.tensor_networks.black_box import from_queries
from tests.distillers.tensor_networks.cases import SIZES

METHODS = pytest.mark.parametrize("method", [Sketch, SketchedKD])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "guessing"}, "method must be one of sketching, cross, got 'guessing'"),
        ({"samples": 1}, "samples must be an integer >= 2, got 1"),
        ({"rank": 0}, "rank must be an integer >= 1, got 0"),
        ({"cutoff": 2.0}, r"cutoff must be a finite number in \[0, 1\], got 2.0"),
        ({"domain": [2.0, 1.0]}, r"domain must be \[least, most\] with least <= most, got \[2.0, 1.0\]"),
        ({"ends": 0}, "ends must be an integer >= 1, got 0"),
        ({"budget": 0}, "budget must be an integer >= 1, got 0"),
    ],
    ids=["method", "samples", "rank", "cutoff", "domain", "ends", "budget"],
)
@METHODS
def test_wrong_arguments_are_refused(method, changes, message, new_chain, perceptron):
    with pytest.raises(ConfigError, match=message):
        method(new_chain(), perceptron, **changes)


@METHODS
def test_a_student_that_is_not_a_chain_is_refused(method, perceptron):
    with pytest.raises(ConfigError, match=r"student must be a matrix product state .* got MLP"):
        method(MLP(**SIZES), perceptron)


@pytest.mark.parametrize("options", [{}, {"method": "cross", "rank": 3, "cutoff": 1e-6, "domain": [0.0, 0.5]}])
def test_the_student_is_that_of_the_function_with_the_same_settings(options, images, new_chain, perceptron):
    inputs, expected = images.splits.train.inputs[:40], new_chain()
    result = from_queries(expected, perceptron, inputs, **options)
    distiller = Sketch(new_chain(), perceptron, **options)
    distiller.build_student(inputs)
    torch.testing.assert_close(distiller.student.cores, expected.cores)
    assert distiller.cost == {
        "queries": result.evaluations,
        "queries_asked": result.asked,
        "query_error": pytest.approx(result.error, rel=1e-6),  # products on several threads round differently
    }


@METHODS
def test_the_cost_is_saved_and_restored(method, images, new_chain, perceptron):
    distiller, restored = (method(new_chain(), perceptron, samples=20) for _ in range(2))
    distiller.build_student(images.splits.train.inputs[:20])
    checkpoint = {}
    distiller.on_save_checkpoint(checkpoint)
    restored.on_load_checkpoint(checkpoint)
    assert restored.cost == distiller.cost
    assert restored.cost["queries"] > 0


def test_the_report_holds_the_cost_of_the_student_and_of_no_control(images, new_chain, perceptron):
    distiller = Sketch(new_chain(), perceptron)
    extras = QueryCost(distiller)
    assert extras.measurements(distiller.student, [], lambda model, batches: {}) == {}
    distiller.build_student(images.splits.train.inputs[:20])
    assert extras.measurements(distiller.student, [], lambda model, batches: {}) == distiller.cost
    assert extras.measurements(new_chain(), [], lambda model, batches: {}) == {}
