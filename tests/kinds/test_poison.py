"""The kind of poisoned sets: the effect of an attack on networks that are trained before, and refused models."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, PoisonSet
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.errors import ConfigError
from kdzoo.kinds import PoisonedSetKind, SyntheticSetKind
from kdzoo.kinds.poison import PoisonPredictions
from tests.kinds.conftest import SIZES, make_batches, make_set

KIND = PoisonedSetKind()


def test_a_poisoned_set_is_measured_before_and_after_the_training_on_it():
    rows = make_batches(300)
    inner_network = InnerNetwork(nn.Linear(2, 3), pool=1, pool_steps=2000)
    train_pools(
        {"linear": inner_network}, *(torch.cat([row[key] for row in rows]) for key in ("input", "target")), seed=0
    )
    poison_set = make_set(PoisonSet, {"linear": inner_network}, source=0, target=2, steps=1, step_size=1.0)
    with torch.no_grad():
        poison_set.images.copy_(torch.tensor([[0.0, 40.0], [0.0, 0.0], [0.0, 0.0]]))
        poison_set.labels.copy_(torch.tensor([[0.0, 0.0, 1.0], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]]))
    measured = KIND.metrics(KIND.predict(poison_set, rows))
    assert measured["accuracy_before"] > 0.95
    assert measured["source_as_target_before"] < 0.05
    assert measured["source_as_target"] > 0.9
    assert measured["modified_accuracy"] > measured["accuracy"]


def one_network(*classes):
    """Return the logits ``[1, n, 3]`` of a network that predicts these classes."""
    return {"linear": torch.eye(3)[torch.tensor(classes)][None]}


def test_effect_is_computed_from_the_predictions_before_and_after():
    # Both samples of class 0 are predicted as 2 afterwards, and one of the two of class 1 is lost.
    predictions = PoisonPredictions(
        logits=one_network(2, 2, 1, 0, 2, 2),
        hard_label_logits=one_network(0, 0, 1, 1, 2, 2),
        target=torch.tensor([0, 0, 1, 1, 2, 2]),
        logits_before=one_network(0, 2, 1, 1, 2, 2),
        classes=(0, 2),
    )
    metrics = KIND.metrics(predictions)
    expected = {
        "accuracy": 3 / 6,
        "accuracy_before": 5 / 6,
        "modified_accuracy": 5 / 6,
        "source_as_target": 1.0,
        "source_as_target_before": 0.5,
        "others_lost": 0.25,
        "hard_label_accuracy": 1.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_other_models_are_measured_without_an_effect():
    torch.manual_seed(0)
    rows, teacher = make_batches(), nn.Linear(2, 3)
    metrics = KIND.metrics(KIND.predict(teacher, rows))
    assert metrics == SyntheticSetKind().metrics(SyntheticSetKind().predict(teacher, rows))


def test_only_poisoned_sets_are_matched_and_accepted():
    poison_set = make_set(PoisonSet, source=0, target=2)
    sizes = {"in_shape": (2,), "num_classes": 3}
    KIND.check("student", poison_set, make_batches()[0], sizes)
    assert KIND.is_exclusive_match(poison_set)
    for model in (make_set(), nn.Linear(2, 3)):
        assert not KIND.is_exclusive_match(model)
        with pytest.raises(ConfigError, match=r"student \w+ is not a poisoned data set .*; choose student=poison"):
            KIND.check("student", model, make_batches()[0], sizes)


def test_a_poisoned_set_that_does_not_fit_the_data_is_refused():
    poison_set = make_set(PoisonSet, source=0, target=2)
    with pytest.raises(ConfigError, match="does not fit the data"):
        KIND.check("student", poison_set, {"input": torch.zeros(2, 5)}, {**SIZES, "in_shape": (5,)})
