"""The kind of synthetic data sets against networks that are trained one by one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from kdzoo.dataset_distillation import InnerNetwork, PoisonSet, SyntheticSet
from kdzoo.errors import ConfigError
from kdzoo.kinds import SyntheticSetKind
from kdzoo.kinds.synthetic_set import Predictions
from tests.kinds.conftest import SIZES, make_batches, make_set


def network_trained_on(synthetic_set, weights, labels):
    inner_network = synthetic_set.inner_networks["linear"]
    network = nn.Linear(2, 3)
    network.load_state_dict(inner_network.state(weights))
    for eta in synthetic_set.schedule("linear").tolist():
        loss = cross_entropy(network(synthetic_set.images.detach()), labels.detach())
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= eta * gradient
    return network


def test_accuracies_are_those_of_networks_trained_one_by_one():
    synthetic_set, rows = make_set(), make_batches()
    inputs, target = (torch.cat([row[key] for row in rows]) for key in ("input", "target"))
    measured = SyntheticSetKind().metrics(SyntheticSetKind().predict(synthetic_set, rows))
    initial = synthetic_set.inner_networks["linear"].held_out()
    assert len(initial) == 20
    for name, labels in (
        ("accuracy", synthetic_set.labels),
        ("hard_label_accuracy", one_hot(synthetic_set.classes(), 3).float()),
    ):
        accuracies = torch.stack(
            [
                (network_trained_on(synthetic_set, weights, labels)(inputs).argmax(1) == target).double().mean()
                for weights in initial
            ]
        )
        assert measured[name] == pytest.approx(float(accuracies.mean()), abs=1e-6)
        if name == "accuracy":
            assert measured["accuracy_std"] == pytest.approx(float(accuracies.std(correction=0)), abs=1e-6)
            assert measured["accuracy_worst"] == pytest.approx(float(accuracies.min()))


def test_a_fixed_start_gives_one_network_and_each_inner_network_has_its_own_accuracy():
    fixed = make_set(inner_network={"linear": InnerNetwork(nn.Linear(2, 3), fixed=3)})
    assert SyntheticSetKind().predict(fixed, make_batches()).logits["linear"].shape == (1, 30, 3)
    two = make_set(
        inner_network={"a": InnerNetwork(nn.Linear(2, 3)), "b": InnerNetwork(nn.Linear(2, 3), init="kaiming")}
    )
    measured = SyntheticSetKind().metrics(SyntheticSetKind().predict(two, make_batches()))
    assert measured["accuracy"] == pytest.approx((measured["accuracy_a"] + measured["accuracy_b"]) / 2)


class SometimesInfinite(nn.Linear):
    """A layer whose output is infinite if a parameter, which gets no gradient, is initialised above 0."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.switch = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):
        return super().forward(x) + torch.where(self.switch > 0, torch.inf, 0.0)


def test_a_network_that_diverges_has_logits_0_and_does_not_affect_the_others():
    synthetic_set = make_set(inner_network={"linear": InnerNetwork(SometimesInfinite(2, 3))})
    diverges = synthetic_set.inner_networks["linear"].held_out()[:, -1] > 0
    predictions = SyntheticSetKind().predict(synthetic_set, make_batches())
    assert 0 < diverges.sum() < 20
    assert torch.equal(predictions.logits["linear"].flatten(1).abs().sum(1) == 0, diverges)
    assert SyntheticSetKind().metrics(predictions)["diverged"] == pytest.approx(float(diverges.double().mean()))


def test_a_set_on_which_all_networks_diverge_has_logits_0():
    synthetic_set = make_set(steps=40)
    synthetic_set.images.data.mul_(1e30)
    assert synthetic_set(torch.ones(5, 2)).tolist() == [[0.0] * 3] * 5


def test_the_teacher_is_measured_by_its_own_predictions_and_the_gap_is_to_its_accuracy():
    kind, synthetic_set, rows = SyntheticSetKind(), make_set(), make_batches()
    teacher = nn.Linear(2, 3)
    student, full = kind.predict(synthetic_set, rows), kind.predict(teacher, rows)
    fidelity = kind.fidelity(student, full)
    of_student, of_teacher = kind.metrics(student), kind.metrics(full)
    inputs, target = (torch.cat([row[key] for row in rows]) for key in ("input", "target"))
    accuracy = float((teacher(inputs).argmax(1) == target).double().mean())
    assert of_teacher["accuracy"] == pytest.approx(accuracy)
    assert of_teacher["accuracy_std"] == 0
    assert of_teacher["hard_label_accuracy"] == of_teacher["accuracy"]
    assert fidelity["hard_label_gap"] == pytest.approx(accuracy - of_student["hard_label_accuracy"])
    assert fidelity["share_of_teacher"] == pytest.approx(of_student["accuracy"] / accuracy)


def test_fixed_labels_are_hard_labels_already():
    synthetic_set = make_set(labels="fixed")
    with torch.no_grad():
        synthetic_set.labels.copy_(torch.eye(3))
    predictions = SyntheticSetKind().predict(synthetic_set, make_batches())
    assert predictions.hard_label_logits is predictions.logits


def test_recall_is_the_mean_over_networks_and_nan_for_a_class_without_samples(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "kdzoo.kinds.synthetic_set.plotting.recall_by_class", lambda recall, path: drawn.update(recall) or path
    )
    logits = torch.eye(3)[torch.tensor([[0, 1, 1], [0, 0, 1]])]  # two networks, three samples
    predictions = Predictions({"linear": logits}, {"linear": logits}, torch.tensor([0, 1, 1]))
    SyntheticSetKind().plot_predictions({"student": predictions}, tmp_path)
    assert drawn["student"][:2].tolist() == [1.0, 0.75]
    assert np.isnan(drawn["student"][2])


def test_examples_of_sets_are_drawn_exported_and_counted(tmp_path):
    kind = SyntheticSetKind()
    digits = SyntheticSet(
        inner_network={"linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))},
        in_shape=(1, 4, 4),
        num_classes=3,
        steps=4,
    )
    models = {"teacher": nn.Linear(2, 3), "student": digits}
    assert [path.name for path in kind.plot_model(models, tmp_path)] == ["examples_student.png"]
    assert {path.suffix for path in kind.export(digits, tmp_path)} >= {".npz", ".safetensors", ".json"}
    assert kind.export(nn.Linear(2, 3), tmp_path) == []
    properties = kind.properties(digits)
    # Three images of 16 pixels, three labels of 3 classes and four step sizes, in float32 at least.
    assert (properties["examples"], properties["inner_steps"]) == (3, 4)
    assert properties["bytes"] >= 4 * (3 * 16 + 3 * 3 + 4)
    assert kind.properties(nn.Linear(2, 3)) == {}


def test_a_poisoned_set_is_not_matched():
    assert SyntheticSetKind().is_exclusive_match(make_set())
    assert not SyntheticSetKind().is_exclusive_match(make_set(PoisonSet, source=0, target=2))
    assert not SyntheticSetKind().is_exclusive_match(nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (nn.Linear(2, 3), "student=synthetic"),
        (
            SyntheticSet(inner_network={"linear": InnerNetwork(nn.Linear(4, 3))}, in_shape=(4,), num_classes=3),
            "does not fit the data",
        ),
        (
            SyntheticSet(inner_network={"linear": InnerNetwork(nn.Linear(5, 3))}, **SIZES),
            "inner_network.linear cannot take",
        ),
        (
            SyntheticSet(inner_network={"linear": InnerNetwork(nn.Linear(2, 4))}, **SIZES),
            "inner_network.linear returns",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, line):
    with pytest.raises(ConfigError, match=line):
        SyntheticSetKind().check("student", model, make_batches()[0], {"in_shape": (2,), "num_classes": 3})
