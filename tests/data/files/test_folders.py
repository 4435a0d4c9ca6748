"""The search for data files, and reading of NumPy archives."""

import numpy as np
import pytest

from kdzoo.data.files.folders import cache_root, find_file, find_root, read_npz, roots, search_root
from kdzoo.errors import DataError


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_order_of_the_roots(offline_home, monkeypatch, tmp_path):
    assert roots(None) == [cache_root()] == [offline_home / ".cache" / "kdzoo"]
    monkeypatch.setenv("KDZOO_DATA", str(tmp_path / "env"))
    assert roots(None) == [tmp_path / "env", cache_root()]
    assert roots(tmp_path / "mine") == [tmp_path / "mine"]
    assert roots("~/mine") == [offline_home / "mine"]


def test_own_folder_comes_before_the_root_itself(tmp_path):
    fill(tmp_path, "a", "b")
    assert search_root(tmp_path, "set", ["a", "b"]) == tmp_path
    fill(tmp_path / "set", "a.gz", "b")
    assert search_root(tmp_path, "set", ["a", "b"]) == tmp_path / "set"
    assert find_file(tmp_path / "set", "a") == tmp_path / "set" / "a.gz"
    assert find_file(tmp_path / "set", "c") is None


def test_environment_then_cache(offline_home, monkeypatch, tmp_path):
    fill(cache_root() / "set", "a")
    monkeypatch.setenv("KDZOO_DATA", str(tmp_path / "env"))
    assert find_root(None, "set", ["a"]) == cache_root() / "set"
    fill(tmp_path / "env" / "set", "a")
    assert find_root(None, "set", ["a"]) == tmp_path / "env" / "set"


def test_nothing_found_says_where_and_what_to_do(offline_home, tmp_path):
    fill(tmp_path / "set", "a")
    with pytest.raises(DataError) as caught:
        find_root(tmp_path, "set", ["a", "b"])
    assert f"set: not all of a, b are in {tmp_path / 'set'} or {tmp_path}" in str(caught.value)
    assert "set data.root or KDZOO_DATA" in str(caught.value)
    assert search_root(None, "set", ["a"]) is None


def save(path, **arrays):
    np.savez(path, **{"x": np.full((30, 2), 255, np.uint8), "y": np.arange(30) % 3, **arrays})
    return path


def test_arrays_are_returned_in_the_order_of_the_keys(tmp_path):
    y, x = read_npz(save(tmp_path / "a.npz"), ["y", "x"])
    assert (y.shape, x.shape, x.dtype) == ((30,), (30, 2), np.uint8)


def test_bad_archives(tmp_path):
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
