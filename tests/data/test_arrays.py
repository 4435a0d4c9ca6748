"""A user's own arrays, from memory and from .npz files."""

import numpy as np
import pytest

from kdzoo.data import ArrayData, NpzData
from kdzoo.errors import DataError


def save(path, n=30, **arrays):
    defaults = {"x": np.full((n, 2), 255, np.uint8), "y": np.arange(n) % 3}
    np.savez(path, **{**defaults, **arrays})
    return path


def test_round_trip_and_scale(tmp_path):
    files = {"train_file": save(tmp_path / "train.npz"), "test_file": str(save(tmp_path / "test.npz", 6))}
    data = NpzData(**files, batch_size=8)
    data.setup()
    assert data.summary() == {"n_train": 27, "n_labelled": 27, "n_val": 3, "n_test": 6, "num_classes": 3}
    assert data.splits.test.inputs.unique().tolist() == [255.0]
    scaled = NpzData(**files, batch_size=8, scale=1 / 255)
    scaled.setup()
    assert scaled.splits.test.inputs.unique().tolist() == [1.0]


def test_other_keys(tmp_path):
    file = save(tmp_path / "a.npz", images=np.zeros((4, 2)), labels=np.arange(4))
    data = NpzData(train_file=file, test_file=file, x_key="images", y_key="labels", batch_size=2)
    data.setup()
    assert data.sizes == {"in_shape": (2,), "num_classes": 4}


def test_a_missing_array_is_named(tmp_path):
    data = NpzData(train_file=save(tmp_path / "a.npz"), test_file=tmp_path / "a.npz", x_key="z")
    with pytest.raises(DataError, match=r"a\.npz has no array 'z'; allowed: one of \['x', 'y'\]"):
        data.setup()


def test_arrays_in_memory_are_used_as_they_are():
    inputs, labels = np.arange(24.0).reshape(6, 2, 2), np.arange(6) % 2
    data = ArrayData((inputs, labels), (inputs[:2], labels[:2]), val_size=0, batch_size=2)
    data.setup()
    np.testing.assert_array_equal(data.splits.train.inputs, inputs)
    assert data.splits.test.targets.tolist() == [0, 1]


def random_arrays(n, classes=3):
    return np.random.default_rng(0).normal(size=(n, 4)).astype("float32"), np.arange(n) % classes


def test_data_that_do_not_fit_are_rejected():
    with pytest.raises(DataError, match="empty"):
        ArrayData(random_arrays(0), random_arrays(3)).setup()
    inputs, labels = random_arrays(30)
    labels[7] = 5
    with pytest.raises(DataError, match=r"label 5 at index 7 is out of range; allowed: 0\.\.2"):
        ArrayData((inputs, labels), random_arrays(9), num_classes=3, batch_size=4).setup()
    inputs[3, 1] = np.nan
    with pytest.raises(DataError, match="index 3 holds NaN"):
        ArrayData((inputs, random_arrays(30)[1]), random_arrays(9), batch_size=4).setup()
