"""How MATLAB files (version 5 to 7) are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from kdzoo.errors import DataError


def read_mat(path: Path, keys: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Return the named arrays of a .mat file; cells are arrays of objects.

    Raises:
        DataError: the file is missing, damaged or has no such array.
    """
    from scipy.io import loadmat  # imported here: few need it

    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=list(keys))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a .mat file with {list(keys)}") from error
    except Exception as error:  # the reader has an error of its own for every kind of damage
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path} is damaged or no .mat file of version 5 to 7 ({reason})") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}; allowed: a .mat file with {list(keys)}")
    return [content[key] for key in keys]
