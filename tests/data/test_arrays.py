import numpy as np
import pytest

from kdzoo.data import NpzData
from kdzoo.data.files.folders import read_npz
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


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match=r"none.npz does not exist; allowed: a .npz file with \['x'\]"):
        read_npz(tmp_path / "none.npz", ["x"])
    with pytest.raises(DataError, match=r"has no array 'z'; allowed: one of \['x', 'y'\]"):
        read_npz(save(tmp_path / "a.npz"), ["z"])
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="is a single array"):
        read_npz(tmp_path / "single.npy", ["x"])
    content = (tmp_path / "a.npz").read_bytes()
    for name, damaged in {
        "short": content[:200],
        "empty": b"",
        "text": b"hello",
        "flipped": content.replace(b"\xff" * 8, b"\x00" * 8),
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name} is damaged or not a .npz file"):
            read_npz(tmp_path / name, ["x"])
    with pytest.raises(DataError, match=r"is damaged or not a .npz file of plain arrays"):
        read_npz(save(tmp_path / "objects.npz", x=np.array([{}, None])), ["x"])
