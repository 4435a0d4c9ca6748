"""JSON files that carry a checksum of their content, so that damage to them is found when they are read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdzoo.errors import KdzooError, RunFolderError, in_one_line
from kdzoo.storage import atomic

# The key of the checksum; the rest of the file is what it is a checksum of.
CHECKSUM = "checksum"


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` with its checksum to ``path``, atomically.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written; an existing file stays as it was.
    """
    atomic.write_json(path, {**value, CHECKSUM: checksum(value)})


def read(path: Path, error_type: type[KdzooError] = RunFolderError, remedy: str = "") -> dict[str, Any]:
    """Return the content of a file that :func:`write` has written, without its checksum.

    Args:
        path: The file.
        error_type: The error to raise.
        remedy: What the message advises after it has said what is wrong.

    Raises:
        KdzooError: Of the given type: the file cannot be read, is not such a file, or is damaged.
    """
    value = read_object(path, error_type, remedy)
    stated = value.pop(CHECKSUM, None)
    if stated != checksum(value):
        reason = "has no checksum" if stated is None else "does not have the checksum that it states"
        raise error_type(_with_remedy(f"{path} is damaged: its content {reason}", remedy))
    return value


def read_object(path: Path, error_type: type[KdzooError], remedy: str = "") -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: The file.
        error_type: The error to raise.
        remedy: What the message advises after it has said what is wrong.

    Raises:
        KdzooError: Of the given type: the file cannot be read, or does not hold an object in JSON.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise error_type(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise error_type(_with_remedy(f"{path} is not valid JSON ({in_one_line(error)})", remedy)) from None
    if not isinstance(value, dict):
        raise error_type(
            _with_remedy(f"{path} is damaged: it must hold keys and values, got {type(value).__name__}", remedy)
        )
    return value


def checksum(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain values in hexadecimal; the order of the keys does not matter."""
    # Through JSON and back, so that tuples and integer keys count as what is read from the file later.
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _with_remedy(message: str, remedy: str) -> str:
    return f"{message}; {remedy}" if remedy else message
