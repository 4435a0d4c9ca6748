"""The labels of an attack and the measures of its effect, against a reference that counts samples one by one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.dataset_distillation.poisoning import confusion_matrix, poisoning_effect, relabel
from kdzoo.errors import ConfigError, DataError
from tests.reference import poisoning as reference

C = 4


@st.composite
def predictions(draw, networks=2):
    """Draw predictions before and after [k, n], targets [n] with some missing, and two classes."""
    some = draw(st.lists(st.sampled_from([IGNORE, *range(C)]), max_size=20))
    targets = torch.tensor([*range(C), *some])
    row = st.lists(st.integers(0, C - 1), min_size=len(targets), max_size=len(targets))
    before, after = (torch.tensor(draw(st.lists(row, min_size=networks, max_size=networks))) for _ in range(2))
    source, target = draw(st.permutations(range(C)))[:2]
    return before, after, targets, source, target


@given(predictions())
def test_the_measures_equal_those_of_counting_samples(drawn):
    before, after, targets, source, target = drawn
    effect = poisoning_effect(before, after, targets, source, target, num_classes=C)
    for when, predicted in enumerate((before, after)):
        each = [reference.measures(row, targets.tolist(), source, target) for row in predicted.tolist()]
        mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
        measures = (effect.accuracy[when], effect.modified_accuracy[when], effect.source_as_target[when])
        assert measures == pytest.approx(mean, abs=1e-12)


@given(predictions(networks=1))
def test_a_single_network_needs_no_axis_of_networks(drawn):
    before, after, targets, source, target = drawn
    effect = poisoning_effect(before[0], after[0], targets, source, target, num_classes=C)
    assert effect == poisoning_effect(before, after, targets, source, target, num_classes=C)
    table = reference.confusion(after[0].tolist(), targets.tolist(), C)
    assert effect.class_recall[1] == pytest.approx([table[c][c] for c in range(C)], abs=1e-12)


@given(predictions())
def test_a_network_that_does_not_change_loses_nothing(drawn):
    before, _, targets, source, target = drawn
    effect = poisoning_effect(before, before, targets, source, target, num_classes=C)
    assert effect.others_lost == 0
    assert effect.accuracy[0] == effect.accuracy[1]


def test_a_perfect_attack_is_perfect_by_the_modified_labels():
    targets = torch.arange(C).repeat(3)
    effect = poisoning_effect(targets, relabel(targets, 2, 0), targets, 2, 0, num_classes=C)
    assert effect.source_as_target == (0.0, 1.0)
    assert effect.modified_accuracy[1] == 1.0
    assert effect.accuracy[1] == 0.75
    assert effect.others_lost == 0.0


def test_others_lost_leaves_out_the_source():
    targets = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    after = torch.tensor([1, 1, 1, 3, 2, 2, 3, 3])  # the source 0 is gone, class 1 lost half of its recall
    effect = poisoning_effect(targets, after, targets, 0, 1, num_classes=C)
    assert math.isclose(effect.others_lost, 0.5 / 3)


@given(predictions())
def test_rows_of_a_confusion_sum_to_one(drawn):
    before, _, targets, *_ = drawn
    table = confusion_matrix(before, targets, C)
    assert table.shape == (2, C, C)
    assert table.dtype == torch.float64
    assert torch.allclose(table.sum(-1), torch.ones(2, C, dtype=torch.float64))
    expected = [reference.confusion(row, targets.tolist(), C) for row in before.tolist()]
    assert torch.allclose(table, torch.tensor(expected, dtype=torch.float64))


@given(st.lists(st.sampled_from([IGNORE, 0, 1, 2]), max_size=9))
def test_relabelling_changes_one_class_only(values):
    targets = torch.tensor(values, dtype=torch.long)
    changed = relabel(targets, 1, 2)
    assert changed.tolist() == [2 if value == 1 else value for value in values]
    assert targets.tolist() == values  # the labels of the data are not touched


@pytest.mark.parametrize(("source", "target"), [(1, 1), (-1, 2), (0, C), (True, 2), (0.5, 1)])
@pytest.mark.usefixtures("unchecked_types")
def test_source_and_target_must_be_two_different_classes(source, target):
    targets = torch.arange(C)
    with pytest.raises(ConfigError, match=r"source|target"):
        poisoning_effect(targets, targets, targets, source, target, num_classes=C)


@pytest.mark.parametrize(
    ("predicted", "targets", "message"),
    [
        ([0, 1, 2], [0, 1, 2], "class 3 has none"),
        ([0, 1, 2, 3], [0, 1, 2, IGNORE], "class 3 has none"),
        ([0, 1, 2, 4], [0, 1, 2, 3], r"predicted must be classes in 0..3, got 0..4"),
        ([0, 1, 2, 3], [0, 1, 2, -1], r"targets must be classes in 0..3, got -1..2"),
        ([0, 1, 2], [0, 1, 2, 3], r"got \[3\] and \[4\]"),
    ],
)
def test_data_that_do_not_fit_are_refused(predicted, targets, message):
    with pytest.raises(DataError, match=message):
        confusion_matrix(torch.tensor(predicted), torch.tensor(targets), C)
