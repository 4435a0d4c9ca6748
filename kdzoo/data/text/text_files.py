"""Text from files, read piece by piece: a text file, a folder of them, JSON lines, a Hugging Face data set on disk.

A piece is a line or the text of a JSON record; an empty piece ends a document. Blank lines separate the documents of a
text file, and its end ends one; every record is a document.
"""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from kdzoo.errors import ConfigError, DataError

JSON_LINES = (".jsonl", ".json")
LONGEST = 10_000
"""Characters after which a line is cut at the next blank; some corpora are one line."""
_OF_DATASETS = ("dataset_info.json", "dataset_dict.json")
_ALLOWED = "a text file, a .jsonl file, a folder of them, or a folder of the package datasets"


def reader(path: str | Path, field: str) -> Callable[[], Iterator[str]]:
    """Return a function that reads the pieces of a corpus from the beginning.

    Args:
        path: a text file; a file of JSON lines (.jsonl, .json); a folder whose .txt, .jsonl and .json files, also those
            in its folders, are read in the order of their names; or a folder that ``datasets`` has saved, of which the
            train part is read if it has parts.
        field: where the text is in a JSON record or a row of a data set.

    Raises:
        DataError: there is no such file, or a folder has none; when it is read, one is no text or no JSON.
        ConfigError: the package ``datasets`` is needed and not installed.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return lambda: _pieces(path, field)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; allowed: {_ALLOWED}")
    if any((path / name).is_file() for name in _OF_DATASETS):
        rows = _rows_of_dataset(path, field)
        return lambda: _documents(rows, field)
    files = sorted(one for one in path.rglob("*") if one.suffix in (".txt", *JSON_LINES) and one.is_file())
    if not files:
        raise DataError(f"{path} has no .txt or .jsonl file; allowed: {_ALLOWED}")
    return lambda: (piece for file in files for piece in _pieces(file, field))


def lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a file with their ends; a byte order mark is no part of the first.

    Raises:
        DataError: the file is missing or no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a text file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number, from 1, and the record of each line of a file of JSON lines; blank lines are skipped.

    Raises:
        DataError: the file is missing or no text, or a line is no JSON object.
    """
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is no JSON ({error})") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number} is no JSON object; allowed: one on each line")
            yield number, record


def _pieces(path: Path, field: str) -> Iterator[str]:
    if path.suffix in JSON_LINES:
        for number, record in records(path):
            if not isinstance(text := record.get(field), str):
                raise DataError(f"{path}, line {number} has no text {field!r}; allowed: one of {', '.join(record)}")
            yield from (text, "")
        return
    for line in lines(path):
        yield from cut(line.rstrip()) or [""]
    yield ""


def cut(line: str, longest: int = LONGEST) -> list[str]:
    """Return a line in pieces of at most ``longest`` characters, cut before a blank if there is one.

    Example:
        >>> cut("to be or not", 6), cut("abcdefgh", 6), cut("")
        (['to be', ' or', ' not'], ['abcdef', 'gh'], [])
    """
    pieces = []
    while len(line) > longest:
        end = line.rfind(" ", 1, longest)
        end = end if end > 0 else longest
        pieces.append(line[:end])
        line = line[end:]
    return [*pieces, line] if line else pieces


def _rows_of_dataset(path: Path, field: str) -> Any:
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise ConfigError(f"{path} is a data set of the package datasets: pip install datasets") from error
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # the readers behind it share no base error
        raise DataError(f"{path} cannot be read by datasets ({' '.join(str(error).split())[:160]})") from error
    if isinstance(found, dict):
        if "train" not in found:
            raise DataError(f"{path} has the parts {', '.join(found)}; allowed: a train part, or no parts")
        found = found["train"]
    if field not in found.column_names:
        raise DataError(f"{path} has no column {field!r}; allowed: one of {', '.join(found.column_names)}")
    return found


def _documents(rows: Any, field: str) -> Iterator[str]:
    for row in rows:
        yield from (row[field], "")
