"""Pure functions on rows and labels, compared with sets and counts."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.data.loading import splits
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.errors import ConfigError

TARGETS = torch.arange(60) % 4


@given(st.integers(1, 50), st.integers(0, 60) | st.floats(0, 0.99))
def test_train_and_val_rows_are_a_partition(n, val_size):
    n_val = val_size if isinstance(val_size, int) else max(1, round(val_size * n)) if val_size else 0
    if n_val >= n:
        with pytest.raises(ConfigError, match=rf"takes {n_val} of {n} samples; allowed: at most {n - 1}$"):
            splits.split_rows(n, val_size)
        return
    train, val = splits.split_rows(n, val_size)
    assert sorted(train.tolist() + val.tolist()) == list(range(n))
    assert val.tolist() == sorted(val.tolist())
    assert len(val) == n_val


def test_the_rows_never_change():
    train, val = splits.split_rows(8, 2)
    assert (train.tolist(), val.tolist()) == ([1, 6, 7, 0, 5, 2], [3, 4])


@given(st.integers(1, 60), st.integers(1, 60))
def test_smaller_train_sizes_are_subsets_of_larger_ones(first, second):
    order, _ = splits.split_rows(60, 0)
    small, large = (splits.take_rows(order, size) for size in sorted((first, second)))
    assert set(small.tolist()) <= set(large.tolist())
    assert large.tolist() == sorted(large.tolist())
    assert len(large) == max(first, second)


def test_all_rows_are_taken_without_a_size_and_no_more_than_there_are():
    assert splits.take_rows(torch.tensor([2, 0, 1]), None).tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"^train_size=4 is more than the 3 training samples; allowed: 1\.\.3$"):
        splits.take_rows(torch.arange(3), 4)


@given(st.sets(st.integers(0, 3)))
def test_rows_of_excluded_classes_are_dropped(classes):
    if len(classes) == 4:
        with pytest.raises(ConfigError, match="leaves no training sample; allowed: fewer classes"):
            splits.drop_classes(torch.arange(60), TARGETS, sorted(classes), 4)
        return
    rows = splits.drop_classes(torch.arange(60), TARGETS, sorted(classes), 4)
    assert rows.tolist() == [row for row in range(60) if row % 4 not in classes]


@given(st.integers(1, 15), st.integers(0, 5))
def test_each_class_keeps_as_many_labels(per_class, seed):
    targets = splits.keep_labels(TARGETS, per_class, seed)
    kept = targets != IGNORE
    assert torch.equal(targets[kept], TARGETS[kept])
    assert torch.bincount(targets[kept]).tolist() == [per_class] * 4
    assert torch.equal(splits.keep_labels(TARGETS, per_class, seed), targets)


def test_smaller_label_budgets_are_subsets_and_seeds_differ():
    small, large, other = (splits.keep_labels(TARGETS, n, seed) for n, seed in ((3, 0), (6, 0), (6, 1)))
    assert ((small == IGNORE) | (small == large)).all()
    assert not torch.equal(large, other)
    with pytest.raises(ConfigError, match=r"^labels_per_class=16 is more than the 15 training samples of class 0"):
        splits.keep_labels(TARGETS, 16, 0)


def test_the_plan_applies_its_steps_in_order():
    plan = SplitPlan(val_size=20, train_size=30, exclude_classes=(1,), labels_per_class=2)
    rows, val_rows, targets = plan.divide(TARGETS, 4, seed=3)
    order, expected_val = splits.split_rows(60, 20)
    expected = [row for row in sorted(order[:30].tolist()) if row % 4 != 1]
    assert rows.tolist() == expected
    assert torch.equal(val_rows, expected_val)
    assert torch.equal(targets, splits.keep_labels(TARGETS[rows], 2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": 1.5}, "val_size=1.5 is not allowed; allowed: a fraction in [0, 1) or a count"),
        ({"val_size": 0, "train_size": 0}, "train_size must be an integer >= 1, got 0"),
        ({"val_size": 0, "labels_per_class": 0.5}, "labels_per_class must be an integer >= 1, got 0.5"),
    ],
)
def test_plans_out_of_range(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SplitPlan(**options)


@pytest.mark.parametrize("classes", [1, "01", {0, 1}])
def test_classes_are_a_sequence(classes):
    assert splits.class_tuple([1, 0]) == (1, 0)
    with pytest.raises(ConfigError, match="allowed: a list of classes"):
        splits.class_tuple(classes)
