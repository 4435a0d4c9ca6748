"""Files that are whole or absent: written beside their place, flushed to disk and renamed into it."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdzoo.errors import RunFolderError


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path in the same folder and rename the result to ``path``.

    Raises:
        RunFolderError: the disk is full or the folder cannot be written; what was there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"  # readable to whom other files here are
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise RunFolderError(_explain(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    write_file(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        return f"cannot write {path}: the disk is full ({free} bytes free); what was there before is kept"
    return f"cannot write {path}: {error.strerror or error}; what was there before is kept"
