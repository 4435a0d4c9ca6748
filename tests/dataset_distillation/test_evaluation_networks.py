"""The training and the accuracy of networks that evaluate a synthetic set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet, evaluation_networks
from kdzoo.functional.unroll import Adam

SIZES = {"in_shape": (4,), "num_classes": 3, "steps": 5, "step_size": 0.5}


@pytest.fixture
def synthetic_set():
    torch.manual_seed(0)
    return SyntheticSet(**SIZES, inner_network={"linear": InnerNetwork(nn.Linear(4, 3))})


@pytest.mark.parametrize("count", [1, 4, 5, 12])
def test_networks_are_trained_as_by_the_set_itself_whatever_the_size_of_batches(synthetic_set, count):
    inner_network = synthetic_set.inner_networks["linear"]
    initial = inner_network.sample(count)
    expected = torch.cat([synthetic_set.train_networks("linear", row[None]) for row in initial]).detach()
    schedule = synthetic_set.schedule("linear")
    weights = evaluation_networks.train_on_set(synthetic_set, inner_network, initial, schedule)
    torch.testing.assert_close(weights, expected)
    assert not weights.requires_grad


def test_labels_and_optimizer_of_the_set_can_be_replaced(synthetic_set):
    inner_network, labels = synthetic_set.inner_networks["linear"], torch.randn(3, 3)
    initial, step_sizes = inner_network.sample(2), torch.full((7,), 0.01)
    options = {"labels": labels, "optimizer": Adam()}
    expected = synthetic_set.train_networks("linear", initial, step_sizes=step_sizes, **options)
    weights = evaluation_networks.train_on_set(synthetic_set, inner_network, initial, step_sizes, **options)
    torch.testing.assert_close(weights, expected.detach())


def test_a_network_that_diverges_is_nan_and_does_not_affect_the_others(synthetic_set):
    inner_network = synthetic_set.inner_networks["linear"]
    initial, schedule = inner_network.sample(6), synthetic_set.schedule("linear")
    expected = evaluation_networks.train_on_set(synthetic_set, inner_network, initial, schedule)
    broken = initial.clone()
    broken[[1, 4]] = 3e38
    weights = evaluation_networks.train_on_set(synthetic_set, inner_network, broken, schedule)
    others = [0, 2, 3, 5]
    torch.testing.assert_close(weights[others], expected[others])
    assert weights[[1, 4]].isnan().all()


def test_logits_are_those_of_each_network_and_zero_for_nan_weights(monkeypatch):
    inner_network, inputs = InnerNetwork(nn.Linear(4, 3)), torch.randn(11, 4)
    weights = inner_network.sample(3)
    expected = torch.stack([nn.functional.linear(inputs, row[:12].view(3, 4), row[12:]) for row in weights])
    expected[1] = 0
    weights[1, 5] = torch.nan
    for chunk in (1024, 4):
        monkeypatch.setattr(evaluation_networks, "INPUTS_AT_ONCE", chunk)
        torch.testing.assert_close(evaluation_networks.predict_logits(inner_network, weights, inputs), expected)
    double = evaluation_networks.predict_logits(inner_network, weights.double(), inputs)
    assert double.dtype == torch.float32


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_accuracy_is_the_expected_share_of_correct_guesses_among_the_largest_logits(data):
    classes, rows = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6))
    logits = data.draw(
        st.lists(st.lists(st.integers(0, 2), min_size=classes, max_size=classes), min_size=rows, max_size=rows)
    )
    targets = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    expected = 0.0
    for row, target in zip(logits, targets, strict=True):
        largest = [c for c in range(classes) if row[c] == max(row)]
        expected += (target in largest) / len(largest) / rows
    accuracy = evaluation_networks.accuracy(torch.tensor([logits], dtype=torch.float), torch.tensor(targets))
    assert accuracy.tolist() == [pytest.approx(expected)]


def test_a_network_whose_logits_are_all_equal_has_the_accuracy_of_guessing():
    targets = torch.tensor([0, 0, 0, 1, 2])  # an argmax would give 3 / 5
    assert evaluation_networks.accuracy(torch.zeros(2, 5, 3), targets).tolist() == pytest.approx([1 / 3] * 2)
