"""From a user's arrays to checked tensors, and from pixels to numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdzoo.data.loading.tensors import TensorSplit, check_finite, checked_split, pixels_to_floats
from kdzoo.errors import DataError


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64, np.float16])
@pytest.mark.parametrize("label_dtype", [np.uint8, np.int32, np.int64])
def test_numbers_are_cast_and_not_scaled(dtype, label_dtype):
    split = checked_split(
        (np.array([[0, 255], [3, 4]], np.uint8).astype(dtype), np.array([1, 0], label_dtype)), "train"
    )
    assert (split.inputs.dtype, split.targets.dtype) == (torch.float32, torch.int64)
    assert split.inputs.tolist() == [[0, 255], [3, 4]]
    assert split.targets.tolist() == [1, 0]


def test_lists_of_numbers_and_read_only_arrays_are_taken():
    inputs = np.ones((2, 3), np.float32)
    inputs.flags.writeable = False
    split = checked_split([inputs, [0, 1]], "test")
    split.inputs[0] = 5  # the split has its own memory, so that a write does not reach the user's array
    assert inputs.max() == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((0, 2)), np.zeros(0, int)), "the train split is empty; allowed: at least 1 sample"),
        ((np.zeros((2, 2)), np.zeros(3, int)), "train has 2 inputs but 3 labels; allowed: equal numbers"),
        ((np.zeros((2, 2)), np.zeros(2)), r"train labels must be integers \[n\], got torch.float64 \[2\]"),
        ((np.zeros(2), np.zeros(2, int)), r"train inputs must be \[n, ...\] with n samples, got \[2\]"),
        ((np.full((2, 2), "a"), np.zeros(2, int)), "train inputs must be an array of numbers, got <U1"),
        ((np.zeros((2, 2), complex), np.zeros(2, int)), "train inputs must be an array of real numbers"),
        ((object(), np.zeros(2, int)), "train inputs must be an array of numbers, got object"),
        (np.zeros((2, 2)), r"train must be a pair \(inputs, labels\), got ndarray"),
        ((1, 2, 3), r"train must be a pair \(inputs, labels\), got tuple of 3"),
    ],
)
def test_arrays_that_are_not_valid(arrays, message):
    with pytest.raises(DataError, match=message):
        checked_split(arrays, "train")


@given(st.integers(0, 4), st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_the_first_sample_that_is_not_finite_is_named(row, value):
    inputs = torch.zeros(5, 2, 3)
    check_finite(inputs, "train")
    inputs[row:, 1, 2] = value
    with pytest.raises(DataError, match=f"^train input at index {row} holds NaN or infinity; allowed: finite numbers$"):
        check_finite(inputs, "train")


@given(hnp.arrays(np.uint8, (2, 3, 2, 2)))
def test_pixels_are_scaled_by_channel(pixels):
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    floats = pixels_to_floats(pixels, mean, std)
    assert floats.dtype == np.float32
    for channel in range(3):
        expected = (pixels[:, channel].astype(np.float64) / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(floats[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_a_split_selects_batches_and_lists_its_inputs():
    split = TensorSplit(torch.arange(8.0).reshape(4, 2), torch.tensor([3, 2, 1, 0]))
    assert len(split) == 4
    batch = split.batch(torch.tensor([2, 0]))
    assert (batch["input"].tolist(), batch["target"].tolist()) == ([[4, 5], [0, 1]], [1, 3])
    selected = split.select(torch.tensor([3, 3, 1]))
    assert (selected.targets.tolist(), selected.inputs[:, 0].tolist()) == ([0, 0, 2], [6, 6, 2])
    assert list(split.content()) == [split.inputs]
    assert split.tensors == (split.inputs, split.targets)
