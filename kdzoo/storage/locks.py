"""Locks on files, by which processes agree who does what; the operating system releases them when a process ends."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kdzoo.core.progress import is_shown, stage
from kdzoo.errors import RunFolderError


@contextmanager
def hold(path: Path, *, wait_for: str = "") -> Iterator[None]:
    """Hold the lock of the file ``path`` while the context is open; see :func:`claim` for the arguments.

    Raises:
        RunFolderError: Another process holds the lock and this call does not wait, or the file cannot be made.
    """
    with claim(path, wait_for=wait_for) as is_claimed:
        if not is_claimed:
            raise RunFolderError(f"{path.parent} is in use by another process; wait for it or choose another folder")
        yield


@contextmanager
def claim(path: Path, *, wait_for: str = "") -> Iterator[bool]:
    """Yield whether this process holds the lock of the file ``path`` while the context is open.

    Args:
        path: The file; it and its folder are made if missing. Its content does not matter.
        wait_for: What another process may be doing, such as ``the training of the teacher``: this call then waits
            until that process has finished or ended, and says so. Empty: it does not wait.

    Raises:
        RunFolderError: The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise RunFolderError(f"cannot write to {path.parent}: {error.strerror}; choose another folder") from error
    with file:
        is_claimed = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_claimed = bool(wait_for)
            if wait_for:
                _wait(file, wait_for, path.parent)
        yield is_claimed


def _wait(file: TextIO, wait_for: str, folder: Path) -> None:
    what = f"waiting for {wait_for} in another process"
    if not is_shown():
        print(f"kdzoo: {what}, which uses {folder}", file=sys.stderr, flush=True)
    with stage(what):
        fcntl.flock(file, fcntl.LOCK_EX)


def is_held(path: Path) -> bool:
    """Return whether another process holds the lock of a file; nothing is written."""
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            # Shared, so that two processes that only look do not see each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
