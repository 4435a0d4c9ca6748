import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdzoo.data.files.idx import read_idx
from kdzoo.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    header = struct.pack(">HBB", 0, CODES[array.dtype.str[1:]], array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


@given(
    st.sampled_from(sorted(CODES)).flatmap(lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=4))), st.booleans()
)
def test_round_trip(tmp_path_factory, array, zipped):
    path = tmp_path_factory.getbasetemp() / "round_trip"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if zipped else content)
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00", "starts with 0000; allowed: the magic of an IDX file"),
        (b"\x00\x01" + GOOD[2:], "starts with 00010803"),
        (b"\x00\x00\x07" + GOOD[3:], "starts with 00000703"),
        (b"\x00\x00\x08\x00", "starts with 00000800"),
        (GOOD[:9], "has 9 bytes"),
        (GOOD[:-1], "has 39 bytes; allowed: 40, as its header says"),
        (GOOD + b"\x00", "has 41 bytes; allowed: 40"),
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be read or is damaged"),
        (gzip.compress(GOOD, mtime=0)[:14] + b"\xff" * 20, "cannot be read or is damaged"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="none does not exist"):
        read_idx(tmp_path / "none")
