"""Where data files lie, and how NumPy archives are read."""

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
    """Return the folder that downloads go to, ~/.cache/kdzoo."""
    return Path.home() / ".cache" / "kdzoo"


def roots(root: str | Path | None) -> list[Path]:
    """Return the folders to look in: ``root`` alone if given, else $KDZOO_DATA (if set), then the cache."""
    if root is not None:
        return [Path(root).expanduser()]
    chosen = os.environ.get("KDZOO_DATA")
    return ([Path(chosen).expanduser()] if chosen else []) + [cache_root()]


def search_root(root: str | Path | None, name: str, files: Sequence[str]) -> Path | None:
    """Return the first folder ``<root>/<name>`` or ``<root>`` that holds all files, or None.

    Args:
        root: the user's choice; None for the usual places (see :func:`roots`).
        name: the data set's own folder.
        files: file names; each may lie there with ".gz" added.
    """
    folders = [folder for base in roots(root) for folder in (base / name, base)]
    return next((folder for folder in folders if all(find_file(folder, file) for file in files)), None)


def find_root(root: str | Path | None, name: str, files: Sequence[str]) -> Path:
    """Return the folder that :func:`search_root` finds.

    Raises:
        DataError: there is none; the message says where it was looked for and what to do.
    """
    found = search_root(root, name, files)
    if found is None:
        places = " or ".join(f"{base / name} or {base}" for base in roots(root))
        raise DataError(
            f"{name}: not all of {', '.join(files)} are in {places}; "
            "set data.root or KDZOO_DATA to the folder that holds them"
        )
    return found


def find_file(folder: Path, name: str) -> Path | None:
    """Return ``folder/name`` or ``folder/name.gz``, whichever is a file, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_npz(path: Path, keys: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Return the named arrays of a .npz file; pickled objects are refused.

    Raises:
        DataError: the file is missing, damaged or has no such array.
    """
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array; allowed: a .npz file with {list(keys)}")
        with content as archive:
            missing = [key for key in keys if key not in archive.files]
            if missing:
                raise DataError(f"{path} has no array {missing[0]!r}; allowed: one of {archive.files}")
            return [archive[key] for key in keys]
    except DataError:  # which is a ValueError
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a .npz file with {list(keys)}") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or no .npz file of plain arrays ({error})") from error


_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
