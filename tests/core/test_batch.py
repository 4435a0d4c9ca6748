"""The format of a batch: conversion, division into micro-batches, and which positions are valid or labelled."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.core.batch import (
    IGNORE,
    as_batch,
    labelled_positions,
    labelled_samples,
    labels,
    micro_batches,
    n_samples,
    valid_positions,
)
from kdzoo.errors import DataError

MASK = torch.tensor([[True, True, False], [True, False, False]])
TARGET = torch.tensor([[1, IGNORE, 2], [0, 0, 0]])


@given(st.integers(1, 20), st.one_of(st.none(), st.integers(1, 25)))
def test_micro_batches_contain_every_sample_once(n, size):
    batch = {"input": torch.arange(n), "target": torch.arange(n)}
    divided = list(micro_batches(batch, size))
    assert torch.equal(torch.cat([part["input"] for part in divided]), batch["input"])
    assert all(len(part["input"]) <= (size or n) for part in divided)


@pytest.mark.parametrize("bad", [{"x": 1}, 3, torch.zeros(2), (1, 2, 3), []])
def test_something_else_is_rejected(bad):
    with pytest.raises(DataError, match="a batch must be a dict with 'input' or a pair"):
        as_batch(bad)


def test_pairs_and_mappings_become_dictionaries():
    inputs, target = torch.zeros(2, 3), torch.zeros(2)
    assert as_batch((inputs, target)) == {"input": inputs, "target": target}
    assert as_batch([inputs]) == {"input": inputs}
    batch = {"input": inputs, "mask": target}
    assert as_batch(batch) is batch


def test_without_a_mask_every_position_is_valid():
    assert valid_positions({"input": torch.zeros(2, 3)}) is ...
    assert torch.equal(valid_positions({"input": torch.zeros(2, 3), "mask": MASK}), MASK)


def test_labelled_positions_are_valid_and_have_a_label():
    batch = {"input": torch.zeros(2, 3), "target": TARGET, "mask": MASK}
    assert labelled_positions(batch).tolist() == [[True, False, False], [True, False, False]]
    assert labels(batch).tolist() == [1, 0]
    assert labels({key: batch[key] for key in ("input", "target")}).tolist() == [1, 2, 0, 0, 0]


def test_without_a_target_nothing_is_labelled():
    batch = {"input": torch.zeros(2, 3)}
    assert labelled_positions(batch).tolist() == [False, False]
    assert labels(batch).dtype == torch.long
    assert labels(batch).numel() == 0


def test_the_labelled_samples_of_many_batches():
    first = (torch.tensor([[1.0], [2.0]]), torch.tensor([0, IGNORE]))
    second = {"input": torch.tensor([[3.0]]), "target": torch.tensor([1])}
    inputs, target = labelled_samples([first, second])
    assert inputs.tolist() == [[1.0], [3.0]]
    assert target.tolist() == [0, 1]
    assert n_samples(second) == 1
