"""Fetches public data files: checked against their MD5, and never half there under their final name."""

import hashlib
import os
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from kdzoo.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
_ADVICE = "set data.root or KDZOO_DATA to a folder that holds it"


def download(url: str, path: Path, md5: str) -> None:
    """Fetch ``url`` to ``path``; nothing is done when the file is there.

    The MD5 guards against damage on the way, not against an attacker.

    Raises:
        DataError: the network or the disk fails, or the content is not what it should be.
    """
    if path.is_file():
        return

    def fetch(target: IO[bytes]) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != md5:
            raise DataError(f"{url} has the MD5 {digest.hexdigest()}; allowed: {md5}; {_ADVICE}")

    try:
        write_atomically(path, fetch)
    except OSError as error:  # URLError and timeouts are OSErrors
        raise DataError(f"cannot download {url} to {path} ({error}); {_ADVICE}") from error


def write_atomically(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Write a file under a temporary name beside it, then rename; on any error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            fill(target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unpack_members(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Copy the regular files called ``names`` out of a .tar.gz into ``folder``; nothing else is unpacked.

    Raises:
        DataError: the archive is damaged, or a file is missing.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = {Path(member.name).name: member for member in tar if member.isreg()}
            for name in names:
                source = tar.extractfile(members[name])
                assert source is not None  # a regular file
                content = source.read()
                write_atomically(folder / name, lambda target, content=content: target.write(content))  # type: ignore[misc]
    except KeyError as error:
        raise DataError(f"{archive} has no regular file {error}; {_ADVICE}") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive} is damaged ({error}); delete it, or {_ADVICE}") from error
