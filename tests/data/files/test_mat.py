"""MATLAB files, as SciPy writes them, and damaged ones."""

import numpy as np
import pytest
from scipy.io import savemat

from kdzoo.data.files.mat import check_published, read_mat
from kdzoo.errors import DataError
from kdzoo.storage.checksums import sha256_of


@pytest.fixture
def path(tmp_path):
    """A compressed file with a matrix and a cell array."""
    cells = np.empty((1, 2), object)
    cells[0] = [np.ones((2, 1)), np.zeros((1, 3))]
    savemat(tmp_path / "a.mat", {"X": np.arange(6, dtype=np.uint8).reshape(2, 3), "C": cells}, do_compression=True)
    return tmp_path / "a.mat"


def test_arrays_are_returned_in_the_order_of_the_keys(path):
    cells, matrix = read_mat(path, ["C", "X"])
    assert matrix.dtype == np.uint8
    np.testing.assert_array_equal(matrix, [[0, 1, 2], [3, 4, 5]])
    assert [cell.shape for cell in cells[0]] == [(2, 1), (1, 3)]


def test_a_missing_file_or_array_is_named(path, tmp_path):
    with pytest.raises(DataError, match=r"b\.mat does not exist; allowed: a \.mat file with \['X'\]$"):
        read_mat(tmp_path / "b.mat", ["X"])
    with pytest.raises(DataError, match=r"a\.mat has no array 'Y'; allowed: a \.mat file with \['X', 'Y'\]$"):
        read_mat(path, ["X", "Y"])


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: b"text" * 99, lambda content: content[: len(content) // 2]]
)
def test_damaged_files_are_reported_in_one_line(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.mat is damaged or not a \.mat file of version 5 to 7 \(.*\)$") as caught:
        read_mat(path, ["X"])
    assert "\n" not in str(caught.value)


def test_only_the_published_file_passes(path, tmp_path):
    sha256 = sha256_of(path)
    check_published(path, sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"a\.mat has the SHA-256 \w+; allowed: {sha256}, that of the published file$"):
        check_published(path, sha256)
    with pytest.raises(DataError, match=r"cannot read .*b\.mat: No such file"):
        check_published(tmp_path / "b.mat", sha256)
