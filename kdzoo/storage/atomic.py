"""Files that are complete or absent: written next to their final path, flushed to disk and renamed into it."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdzoo.errors import RunFolderError


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path in the same folder, and rename the result to ``path``.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written; an existing file stays as it was.
    """
    with explained_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with explained_errors(path):
            write(temporary)
        move_into_place(temporary, path)
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
    # NaN is not standard JSON, but Python reads it back, and a metric that is NaN must not lose a report.
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def temporary_beside(path: Path) -> Path:
    """Return an unused path in the same folder, which a rename can move to ``path``.

    Unlike a file of ``tempfile``, one created there has the usual permissions, so others can read it if they can read
    the rest of the folder.
    """
    return path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it to ``path``.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written.
    """
    with explained_errors(path):
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)  # the rename itself is on disk only once the folder is


@contextmanager
def explained_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a RunFolderError that names ``path`` and the cause."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(_explain(path, error)) from error


def _flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    # Without this, a rename may reach the disk before the content, and a power failure leaves an empty file.
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    """Return one line on why ``path`` cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        return f"cannot write {path}: the disk is full ({free} bytes free); the previous file is kept"
    return f"cannot write {path}: {error.strerror or error}; the previous file is kept"
