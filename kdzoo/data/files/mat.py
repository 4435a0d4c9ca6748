"""Reader of MATLAB files of version 5 to 7."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from kdzoo.errors import DataError, first_line
from kdzoo.storage.checksums import sha256_of


def check_published(path: Path, sha256: str) -> None:
    """Reject a file that is not the published one: SciPy's reader can crash on a damaged file, and read wrong numbers.

    Args:
        path: The file.
        sha256: The SHA-256 of the published file in hexadecimal.

    Raises:
        DataError: The file cannot be read, or has another SHA-256.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if found != sha256:
        raise DataError(f"{path} has the SHA-256 {found}; allowed: {sha256}, that of the published file")


def read_mat(path: Path, keys: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Return the named arrays of a .mat file; MATLAB cells become arrays of objects.

    Args:
        path: The file.
        keys: Names of the arrays, in the order in which they are returned.

    Raises:
        DataError: If the file is missing, is damaged or has no such array.
    """
    from scipy.io import loadmat  # imported here, because only few data sets need it and it takes a while

    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=list(keys))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a .mat file with {list(keys)}") from error
    except Exception as error:  # SciPy raises many types, from TypeError to zlib.error, for damaged files
        reason = first_line(error)
        raise DataError(f"{path} is damaged or not a .mat file of version 5 to 7 ({reason})") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}; allowed: a .mat file with {list(keys)}")
    return [content[key] for key in keys]
