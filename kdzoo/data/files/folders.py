"""Search of the folders that hold data files, and reading of NumPy archives."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdzoo.errors import DataError


def cache_root() -> Path:
    """Return the folder that downloads are written to, ``~/.cache/kdzoo``."""
    return Path.home() / ".cache" / "kdzoo"


def roots(root: str | Path | None) -> list[Path]:
    """Return the folders to search: only ``root`` if it is given, else ``$KDZOO_DATA`` (if set), then the cache."""
    if root is not None:
        return [Path(root).expanduser()]
    data_folder = os.environ.get("KDZOO_DATA")
    return ([Path(data_folder).expanduser()] if data_folder else []) + [cache_root()]


def search_root(root: str | Path | None, name: str, files: Sequence[str]) -> Path | None:
    """Return the first folder ``<root>/<name>`` or ``<root>`` that holds all files, or None.

    Args:
        root: The user's choice; None searches the default roots (see :func:`roots`).
        name: The data set's own folder.
        files: File names; each may exist with ".gz" appended instead.
    """
    folders = [folder for base in roots(root) for folder in (base / name, base)]
    return next((folder for folder in folders if all(find_file(folder, file) for file in files)), None)


def find_root(root: str | Path | None, name: str, files: Sequence[str]) -> Path:
    """Return the folder that :func:`search_root` finds.

    Raises:
        DataError: If there is none; the message says which folders were searched and what to do.
    """
    folder = search_root(root, name, files)
    if folder is None:
        places = " or ".join(f"{base / name} or {base}" for base in roots(root))
        raise DataError(
            f"{name}: not all of {', '.join(files)} are in {places}; "
            "set data.root or KDZOO_DATA to the folder that holds them"
        )
    return folder


def find_file(folder: Path, name: str) -> Path | None:
    """Return the first of ``folder/name`` and ``folder/name.gz`` that is a file, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_npz(path: Path, keys: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Return the named arrays of a .npz file.

    Args:
        path: The file.
        keys: Names of the arrays, in the order in which they are returned.

    Raises:
        DataError: If the file is missing, is damaged, has no such array or contains pickled objects.
    """
    try:
        content = np.load(path, allow_pickle=False)  # unpickling a downloaded file could run any code
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array; allowed: a .npz file with {list(keys)}")
        with content as archive:
            missing = [key for key in keys if key not in archive.files]
            if missing:
                raise DataError(f"{path} has no array {missing[0]!r}; allowed: one of {archive.files}")
            return [archive[key] for key in keys]
    except DataError:  # it is a ValueError, which the last clause would catch
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a .npz file with {list(keys)}") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or not a .npz file of plain arrays ({error})") from error


# What NumPy, zipfile and the decompressors raise for truncated or altered archives.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
