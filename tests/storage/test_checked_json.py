"""JSON files with a checksum: what is written is read, and every damage is found."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import CacheError, RunFolderError
from kdzoo.storage import checked_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=st.dictionaries(st.text().filter(lambda key: key != checked_json.CHECKSUM), VALUES, max_size=5))
def test_what_is_written_is_read(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "file.json"
    checked_json.write(path, value)
    assert checked_json.read(path) == value


def test_tuples_integer_keys_and_nan_survive(tmp_path):
    checked_json.write(tmp_path / "file.json", {"score": math.nan, "seeds": (0, 1), "n": {3: 1}})
    read = checked_json.read(tmp_path / "file.json")
    assert math.isnan(read.pop("score"))
    assert read == {"seeds": [0, 1], "n": {"3": 1}}


def is_refused(path, value):
    """Return why a file is refused; None if the bit has changed nothing, as where a space became another one."""
    try:
        read = checked_json.read(path)
    except RunFolderError as error:
        return error
    assert read == value
    return None


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "file.json"
    value = {"student": {"metrics": {"accuracy": 0.9375}}, "versions": {"torch": "2.13.0"}, "seed": [0, 1]}
    checked_json.write(path, value)
    whole, refused = path.read_bytes(), 0
    for position in random.Random(0).sample(range(8 * len(whole)), 400):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        error = is_refused(path, value)
        refused += error is not None
        assert error is None or len(str(error).splitlines()) == 1
    assert refused > 350


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "must hold keys and values, got list"),
        (b"{}", "has no checksum"),
        (json.dumps({"checksum": "0" * 64}).encode(), "does not have the checksum that it states"),
    ],
)
def test_another_file_is_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(CacheError, match=rf"file\.json .*{message}.*; delete it$"):
        checked_json.read(tmp_path / "file.json", CacheError, "delete it")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot read .*: Is a directory"):
        checked_json.read(tmp_path)
    with pytest.raises(RunFolderError, match=r"cannot read .*: No such file"):
        checked_json.read(tmp_path / "file.json")
