"""What the report says of data sets and of poisoned ones, against networks trained one by one."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from kdzoo.dataset_distillation import InnerNetwork, PoisonSet, SyntheticSet
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.errors import ConfigError
from kdzoo.kinds import PoisonedSetKind, SyntheticSetKind

SIZES = {"in_shape": (2,), "num_classes": 3}


def batches(n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    inputs = centres[target] + 0.5 * torch.randn(n, 2, generator=generator)
    return [{"input": inputs[:20], "target": target[:20]}, {"input": inputs[20:], "target": target[20:]}]


def few_of(kind=SyntheticSet, inner_network=None, **options):
    torch.manual_seed(0)
    few = kind(
        inner_network=inner_network or {"linear": InnerNetwork(nn.Linear(2, 3))},
        **SIZES,
        **{"steps": 4, "step_size": 0.5, **options},
    )
    with torch.no_grad():
        few.images.copy_(torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]]))
        few.labels.copy_(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]))
    return few


def network_trained_on(few, weights, labels):
    inner_network = few.inner_networks["linear"]
    network = nn.Linear(2, 3)
    network.load_state_dict(inner_network.state(weights))
    for eta in few.schedule("linear").tolist():
        slopes = torch.autograd.grad(
            cross_entropy(network(few.images.detach()), labels.detach()), list(network.parameters())
        )
        with torch.no_grad():
            for one, slope in zip(network.parameters(), slopes, strict=True):
                one -= eta * slope
    return network


def test_accuracies_are_those_of_networks_trained_one_by_one():
    few, rows = few_of(), batches()
    inputs, target = (torch.cat([row[key] for row in rows]) for key in ("input", "target"))
    measured = SyntheticSetKind().metrics(SyntheticSetKind().predict(few, rows))
    starts = few.inner_networks["linear"].held_out()
    assert len(starts) == 20
    for name, labels in (("accuracy", few.labels), ("hard_label_accuracy", one_hot(few.classes(), 3).float())):
        found = [(network_trained_on(few, one, labels)(inputs).argmax(1) == target).double().mean() for one in starts]
        assert measured[name] == pytest.approx(float(torch.stack(found).mean()), abs=1e-6)
        if name == "accuracy":
            assert measured["accuracy_std"] == pytest.approx(float(torch.stack(found).std(correction=0)), abs=1e-6)
            assert measured["accuracy_worst"] == pytest.approx(float(min(found)))


def test_one_start_is_judged_once_and_several_learners_each():
    fixed = few_of(inner_network={"linear": InnerNetwork(nn.Linear(2, 3), fixed=3)})
    assert SyntheticSetKind().predict(fixed, batches()).logits["linear"].shape == (1, 30, 3)
    two = few_of(inner_network={"a": InnerNetwork(nn.Linear(2, 3)), "b": InnerNetwork(nn.Linear(2, 3), init="kaiming")})
    measured = SyntheticSetKind().metrics(SyntheticSetKind().predict(two, batches()))
    assert measured["accuracy"] == pytest.approx((measured["accuracy_a"] + measured["accuracy_b"]) / 2)


class Fragile(nn.Linear):
    """Breaks where a weight that no step moves starts above 0."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.crack = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):
        return super().forward(x) + torch.where(self.crack > 0, torch.inf, 0.0)


def test_a_network_that_diverges_says_nothing_and_spoils_no_other():
    few = few_of(inner_network={"linear": InnerNetwork(Fragile(2, 3))})
    broken = few.inner_networks["linear"].held_out()[:, -1] > 0
    found = SyntheticSetKind().predict(few, batches())
    assert 0 < broken.sum() < 20
    assert torch.equal(found.logits["linear"].flatten(1).abs().sum(1) == 0, broken)
    assert SyntheticSetKind().metrics(found)["diverged"] == pytest.approx(float(broken.double().mean()))


def test_a_set_on_which_a_network_diverges_says_nothing():
    few = few_of(steps=40)
    few.images.data.mul_(1e30)
    assert few(torch.ones(5, 2)).tolist() == [[0.0] * 3] * 5


def test_the_teacher_is_a_network_and_the_gap_is_to_its_accuracy():
    kind, few, rows = SyntheticSetKind(), few_of(), batches()
    teacher = nn.Linear(2, 3)
    student, full = kind.predict(few, rows), kind.predict(teacher, rows)
    found = kind.fidelity(student, full)
    own, top = kind.metrics(student), kind.metrics(full)
    assert top["accuracy_std"] == 0
    assert top["hard_label_accuracy"] == top["accuracy"]
    assert found["hard_label_gap"] == pytest.approx(top["accuracy"] - own["hard_label_accuracy"])


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
def test_what_does_not_fit_is_refused_in_a_line(model, line):
    with pytest.raises(ConfigError, match=line):
        SyntheticSetKind().check("student", model, batches()[0], {"in_shape": (2,), "num_classes": 3})
    with pytest.raises(ConfigError, match="student=poison"):
        PoisonedSetKind().check("student", model, batches()[0], {"in_shape": (2,), "num_classes": 3})


def test_a_poisoned_set_is_measured_before_and_after_its_steps():
    rows = batches(300)
    inner_network = InnerNetwork(nn.Linear(2, 3), pool=1, pool_steps=2000)
    train_pools(
        {"linear": inner_network}, *(torch.cat([row[key] for row in rows]) for key in ("input", "target")), seed=0
    )
    few = few_of(PoisonSet, {"linear": inner_network}, source=0, target=2, steps=1, step_size=1.0)
    with torch.no_grad():
        few.images.copy_(torch.tensor([[0.0, 40.0], [0.0, 0.0], [0.0, 0.0]]))
        few.labels.copy_(torch.tensor([[0.0, 0.0, 1.0], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]]))
    measured = PoisonedSetKind().metrics(PoisonedSetKind().predict(few, rows))
    assert measured["accuracy_before"] > 0.95
    assert measured["source_as_target_before"] < 0.05
    assert measured["source_as_target"] > 0.9
    assert measured["modified_accuracy"] > measured["accuracy"]
