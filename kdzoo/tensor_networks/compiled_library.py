"""A shared library that is compiled once for a machine and kept in the user's cache.

Loading a library runs its code, so one is loaded only from a folder that nobody else can write to, and only if it has
the checksum that was noted when it was built.
"""

import ctypes
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from kdzoo.errors import RunFolderError
from kdzoo.storage import atomic
from kdzoo.storage.checksums import sha256_of


def load(path: Path, build: Callable[[Path], None]) -> ctypes.CDLL:
    """Return the library at ``path``, built if it is missing, damaged, or not safe from other users.

    Where no folder of the cache can be used, the library is built for this process alone.

    Args:
        path: Where the library is kept; its checksum is beside it, with ``.sha256`` appended.
        build: Writes the library to a path.

    Raises:
        OSError: The library cannot be loaded.
    """
    if not _is_private(path.parent):
        return _load_temporary(build)
    checksum = path.with_name(f"{path.name}.sha256")
    if not (_is_ours(path) and _is_ours(checksum) and sha256_of(path) == checksum.read_text().strip()):
        try:
            atomic.write_file(path, build)
            atomic.write_text(checksum, sha256_of(path))
            for file in (path, checksum):
                file.chmod(0o600)  # whatever the user's default is
        except RunFolderError:  # such as a full disk
            return _load_temporary(build)
    return ctypes.CDLL(str(path))


def _is_private(folder: Path) -> bool:
    """Return whether only the user can write to a folder, which is made if it does not exist, and to those above it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)
        return all(map(_only_trusted_users_write, [folder, *folder.resolve().parents]))
    except OSError:
        return False


def _only_trusted_users_write(folder: Path) -> bool:
    """Return whether only the user and the administrator can rename or replace what is in a folder."""
    status = folder.stat()
    is_trusted = status.st_uid in (os.getuid(), 0)
    # In a folder with the sticky bit, such as /tmp, everybody can rename only files of their own.
    return is_trusted and (not _others_write(status) or bool(status.st_mode & stat.S_ISVTX))


def _is_ours(path: Path) -> bool:
    """Return whether a file is there that only the user can have written."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not _others_write(status)


def _others_write(status: os.stat_result) -> bool:
    """Return whether anybody but the owner may write, other than through a group that only the user belongs to."""
    is_own_group = status.st_gid == _private_group()
    return bool(status.st_mode & stat.S_IWOTH) or (bool(status.st_mode & stat.S_IWGRP) and not is_own_group)


@cache
def _private_group() -> int | None:
    """Return the group that many systems make for each user alone, or None."""
    try:
        user = pwd.getpwuid(os.getuid())
        group = grp.getgrgid(user.pw_gid)
    except KeyError:  # as in containers with an unknown user
        return None
    return group.gr_gid if group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name} else None


def _load_temporary(build: Callable[[Path], None]) -> ctypes.CDLL:
    """Build the library in a folder of this process, and load it; the loaded library outlives its file."""
    with tempfile.TemporaryDirectory(prefix="kdzoo-") as folder:
        path = Path(folder) / "library.so"
        build(path)
        return ctypes.CDLL(str(path))
