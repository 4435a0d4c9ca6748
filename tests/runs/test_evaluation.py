"""Measurement of models: by role, against the teacher, for unseen classes, and the cost of prediction."""

import time

import pytest
import torch
from torch import nn

from kdzoo import kinds
from kdzoo.runs import evaluation


class Batches:
    """Data with a test and a validation split."""

    def test_dataloader(self):
        return [{"input": torch.tensor([1.0, 2.0])}]

    def val_dataloader(self):
        return [{"input": torch.tensor([5.0])}]

    def summary(self):
        return {"n_test": 2}


class Kind:
    """Predictions are sums of inputs; the metric is their value, the fidelity their distance."""

    name, score = "sum", "value"

    def predict(self, model, batches):
        return float(sum(model(batch["input"]).sum() for batch in batches))

    def metrics(self, predictions):
        return {"value": predictions}

    def fidelity(self, student, teacher):
        return {"distance": abs(student - teacher)}


class Times(nn.Module):
    """Multiplies by a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, inputs):
        return self.factor * inputs


@pytest.fixture
def no_cost(monkeypatch):
    monkeypatch.setattr(evaluation, "cpu_ms_per_1000", lambda model, batches: 1.0)


class Collapsing(kinds.ClassifierKind):
    def warnings(self, metrics):
        return ["it has collapsed"] if metrics["accuracy"] < 0.5 else []


def test_warnings_are_of_models_that_were_trained():
    bad, good = {"accuracy": 0.1}, {"accuracy": 0.9}
    measured = {
        "teacher": {"parameters": 5, "metrics": good},
        "student": {"parameters": 5, "metrics": bad},
        "data": {"parameters": 0, "metrics": bad},
    }
    assert evaluation.warnings_of(Collapsing(), measured) == ["student: it has collapsed"]
    assert evaluation.warnings_of(kinds.ClassifierKind(), measured) == []


def test_students_and_controls_are_compared_with_the_teacher(no_cost, tmp_path):
    models = {"teacher": Times(3.0), "student": Times(2.0), "control": Times(1.0)}
    result = evaluation.evaluate(Kind(), models, Batches(), tmp_path)
    assert {role: values["metrics"] for role, values in result["models"].items()} == {
        "teacher": {"value": 9.0},
        "student": {"value": 6.0},
        "control": {"value": 3.0},
    }
    assert result["fidelity"] == {"student": {"distance": 3.0}, "control": {"distance": 6.0}}
    assert (result["kind"], result["splits"]) == ("sum", {"n_test": 2})
    assert all(values["parameters"] == 1 for values in result["models"].values())


@pytest.mark.parametrize("split", [[], None])
def test_the_score_on_validation_data_is_that_of_the_student(split, no_cost, tmp_path):
    models = {"teacher": Times(3.0), "student": Times(2.0)}
    data = Batches()
    data.val_dataloader = lambda: [{"input": torch.tensor([5.0])}]
    assert evaluation.evaluate(Kind(), models, data, tmp_path)["validation"] == 10.0
    data.val_dataloader = lambda: split
    assert evaluation.evaluate(Kind(), models, data, tmp_path)["validation"] is None


def test_without_a_teacher_nothing_is_compared(no_cost, tmp_path):
    assert evaluation.evaluate(Kind(), {"student": Times(2.0)}, Batches(), tmp_path)["fidelity"] == {}


class CorrectsUnseen(Kind):
    """Has a correction for classes that the student has not seen."""

    def unseen(self, test, validation, classes):
        return {"corrected": test + validation + sum(classes)}


def test_unseen_classes_are_corrected_on_the_validation_split(no_cost, tmp_path):
    models = {"student": Times(2.0)}
    plain = evaluation.evaluate(CorrectsUnseen(), models, Batches(), tmp_path)
    assert "corrected" not in plain["models"]["student"]["metrics"]
    corrected = evaluation.evaluate(CorrectsUnseen(), models, Batches(), tmp_path, unseen=[3])
    assert corrected["models"]["student"]["metrics"]["corrected"] == 6.0 + 10.0 + 3


class Described(Kind):
    """Adds properties and figures."""

    def properties(self, model):
        return {"factor": float(model.factor)}

    def plot_predictions(self, predictions, folder):
        folder.mkdir(parents=True)
        (folder / "predictions.txt").write_text(str(sorted(predictions)))


@pytest.mark.parametrize("is_main", [True, False])
def test_properties_are_metrics_and_only_one_process_draws(is_main, no_cost, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "is_main_process", lambda: is_main)
    result = evaluation.evaluate(Described(), {"student": Times(2.0)}, Batches(), tmp_path)
    assert result["models"]["student"]["metrics"] == {"value": 6.0, "factor": 2.0}
    assert (tmp_path / "figures" / "predictions.txt").exists() == is_main


def test_a_kind_is_bound_to_the_data_if_it_can_be(tmp_path):
    class Bindable(Kind):
        def bind(self, data, cache, feature_extractor):
            return (data, cache, feature_extractor)

    settings = {"cache_dir": str(tmp_path), "feature_extractor": "net"}
    assert evaluation.bound_kind(Bindable(), "data", settings) == ("data", tmp_path, "net")
    plain = Kind()
    assert evaluation.bound_kind(plain, "data", settings) is plain


class Busy(nn.Module):
    """Uses CPU time for a while, and notes with how many threads."""

    def __init__(self, milliseconds):
        super().__init__()
        self.milliseconds, self.threads, self.calls = milliseconds, set(), 0

    def forward(self, inputs):
        self.threads.add(torch.get_num_threads())
        self.calls += 1
        end = time.process_time() + self.milliseconds / 1000
        while time.process_time() < end:
            pass
        return inputs


def test_the_cost_of_prediction_is_cpu_time_per_1000_samples_in_one_thread():
    before = torch.get_num_threads()
    model = Busy(milliseconds=4)
    cost = evaluation.cpu_ms_per_1000(model, [{"input": torch.zeros(10, 2)}])
    assert cost == pytest.approx(400, rel=0.1)
    assert model.threads == {1}
    assert model.calls == 6  # one to warm up
    assert torch.get_num_threads() == before
    assert model.training


def test_the_cost_of_a_slow_model_is_measured_fewer_times(monkeypatch):
    monkeypatch.setattr(evaluation, "MEASURED_SECONDS", 0.005)
    model = Busy(milliseconds=4)
    assert evaluation.cpu_ms_per_1000(model, [{"input": torch.zeros(1, 2)}]) == pytest.approx(4000, rel=0.1)
    assert model.calls == 3
