"""Downloads of public data files, verified by their SHA-256 and visible under their final name only when complete."""

import hashlib
import os
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from kdzoo.errors import DataError

_CHUNK = 1 << 20  # bytes read at once, so that archives of hundreds of MB are never in memory
_TIMEOUT_SECONDS = 60  # of a single read, not of the download: a slow connection may take as long as it needs
_ADVICE = "set data.root or KDZOO_DATA to a folder that holds it"


def download(url: str, path: Path, sha256: str) -> None:
    """Download ``url`` to ``path``; does nothing if the file exists.

    The SHA-256 detects damage and a changed file, also where the source has no https.

    Args:
        url: Address of the file.
        path: Where to write it; missing folders are made.
        sha256: Expected digest in hexadecimal.

    Raises:
        DataError: If the network or the disk fails, or the digest differs.
    """
    if path.is_file():
        return

    def fetch(target: IO[bytes]) -> None:
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != sha256:
            raise DataError(f"{url} has the SHA-256 {digest.hexdigest()}; allowed: {sha256}; {_ADVICE}")

    try:
        write_atomically(path, fetch)
    except OSError as error:  # URLError and timeouts are OSErrors
        raise DataError(f"cannot download {url} to {path} ({error}); {_ADVICE}") from error


def write_atomically(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Write a file under a temporary name next to it, then rename it; on any error the temporary file is removed.

    Args:
        path: The file; an older one is replaced.
        fill: Writes the content to an open binary file.
    """
    # In the same folder, because os.replace is atomic only within one file system.
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            fill(target)
            target.flush()
            os.fsync(target.fileno())  # otherwise a crash can leave the new name with no content
        os.replace(temporary, path)
    except BaseException:  # also KeyboardInterrupt: a cancelled download leaves nothing behind
        Path(temporary).unlink(missing_ok=True)
        raise


def unpack_members(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Copy the regular files with these names out of a .tar.gz archive into a folder; nothing else is unpacked.

    Args:
        archive: The archive.
        names: File names, without the folders inside the archive.
        folder: Where to write the files.

    Raises:
        DataError: If the archive is damaged, or a file is missing.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # Matching bare names of regular files excludes links and paths such as ../../x, which could write
            # outside of the folder.
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
