"""Labels of classes: missing ones, wrong ones, and classes without samples with the likely reason."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.data.loading import class_labels
from kdzoo.errors import ConfigError, DataError


def labels(*values):
    return torch.tensor(values)


@given(st.lists(st.integers(0, 6), min_size=1), st.sampled_from([-1, 255, IGNORE]))
def test_a_missing_label_is_not_a_class_whatever_stands_for_it(values, ignore_index):
    values = torch.tensor([*range(max(values) + 1), *values])
    mixed = torch.stack([values, torch.full_like(values, ignore_index)]).T.flatten()
    hidden = class_labels.hide_missing(mixed, ignore_index)
    assert hidden[::2].tolist() == values.tolist()
    assert set(hidden[1::2].tolist()) == {IGNORE}
    assert class_labels.count_classes(hidden, ignore_index=ignore_index) == int(values.max()) + 1


def test_a_given_number_of_classes_may_have_classes_without_samples():
    assert class_labels.count_classes(labels(1, 3, 3), 7) == 7
    assert class_labels.count_classes(labels(1, 0)) == 2


@pytest.mark.parametrize(
    ("targets", "num_classes", "message"),
    [
        (labels(0, 1, 2, 3), 3, "train label 3 at index 3 is out of range; allowed: 0..2, or -1 for a missing label"),
        (labels(0, -100, -5), None, "train label -5 at index 2 is out of range; allowed: 0..0"),
        (labels(1, 2, 3), None, "no sample has the label 0; do they begin at 1? Subtract 1, or set data.num_classes=4"),
        (labels(0, 1, 255), None, "the label 2, 3, 4, 5, 6 and 248 more; set data.ignore_index=255 if 255 stands for"),
        (labels(0, 2), None, "the label 1; set data.ignore_index=2 if 2 stands for a missing label, or"),
        (labels(2, 4, 6), None, "the label 0, 1, 3, 5; number the 3 classes from 0, or set data.num_classes=7"),
        (labels(IGNORE, IGNORE), None, "all 2 training labels are missing (-1); allowed: at least one label"),
    ],
)
def test_wrong_labels_are_refused_with_the_likely_reason(targets, num_classes, message):
    with pytest.raises(DataError, match=re.escape(message)) as error:
        class_labels.count_classes(targets, num_classes, ignore_index=-1)
    assert "\n" not in str(error.value)


def test_a_split_without_labels_cannot_be_measured():
    class_labels.check_any_label(labels(IGNORE, 0), "test")
    class_labels.check_any_label(torch.empty(0, dtype=torch.int64), "val")  # no val split
    with pytest.raises(DataError, match="allowed: at least one label, or no val split"):
        class_labels.check_any_label(labels(IGNORE), "val")
    with pytest.raises(DataError, match="the test split has no labels"):
        class_labels.check_any_label(labels(IGNORE, IGNORE), "test")


@pytest.mark.parametrize("value", [True, 1.5, "255", None])
def test_what_stands_for_a_missing_label_is_an_integer(value):
    assert class_labels.checked_ignore_index(255) == 255
    with pytest.raises(ConfigError, match="ignore_index must be an integer"):
        class_labels.checked_ignore_index(value)
