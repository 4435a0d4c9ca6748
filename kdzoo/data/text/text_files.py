"""Reading a text piece by piece: from a text file, a folder of them, JSON lines, or a Hugging Face data set on disk.

A piece is a line or the text of a JSON record; an empty piece ends a document. Blank lines separate the documents of a
text file, and the end of the file ends one; every record is a document.
"""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from kdzoo.errors import ConfigError, DataError, in_one_line, shortened

JSON_LINES = (".jsonl", ".json")
# Characters after which a line is split at a space. Some corpora are a single line, and the tokenizer would hold all of
# it in memory; a split costs at most a word piece that would have contained the space.
MAX_PIECE = 10_000
# Files that the library datasets writes into the folder of a data set, and of several splits of one.
_OF_DATASETS = ("dataset_info.json", "dataset_dict.json")
_ALLOWED = "a text file, a .jsonl file, a folder of them, or a folder of the package datasets"


def reader(path: str | Path, field: str) -> Callable[[], Iterator[str]]:
    """Return a function that reads the pieces of a corpus from the beginning.

    Args:
        path: A text file; a file of JSON lines (.jsonl, .json); a folder whose .txt, .jsonl and .json files, also those
            in its subfolders, are read in the order of their names; or a folder that ``datasets`` has saved, of which
            the train split is read if it has splits.
        field: Name of the text in a JSON record or a row of a data set.

    Raises:
        DataError: There is no such file, or a folder has none; or, when it is read, a file is not text or not JSON.
        ConfigError: The package ``datasets`` is needed and not installed.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return lambda: _pieces(path, field)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; allowed: {_ALLOWED}")
    if any((path / name).is_file() for name in _OF_DATASETS):
        rows = _rows_of_dataset(path, field)
        return lambda: _documents(rows, field)
    files = sorted(file for file in path.rglob("*") if file.suffix in (".txt", *JSON_LINES) and file.is_file())
    if not files:
        raise DataError(f"{path} has no .txt or .jsonl file; allowed: {_ALLOWED}")
    return lambda: (piece for file in files for piece in _pieces(file, field))


def lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a file with their line ends, without a byte order mark.

    Args:
        path: The file, in UTF-8.
        newline: See :func:`open`.

    Raises:
        DataError: The file is missing or not text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a text file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number, from 1, and the record of each line of a file of JSON lines; blank lines are skipped.

    Raises:
        DataError: The file is missing or not text, or a line is not a JSON object.
    """
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is not JSON ({error})") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number} is not a JSON object; allowed: one on each line")
            yield number, record


def _pieces(path: Path, field: str) -> Iterator[str]:
    """Yield the pieces of one file."""
    if path.suffix in JSON_LINES:
        for number, record in records(path):
            if not isinstance(text := record.get(field), str):
                raise DataError(
                    f"{path}, line {number} has no text {field!r}; allowed: one of {shortened(', '.join(record))}"
                )
            yield from (text, "")
        return
    for line in lines(path):
        yield from split_line(line.rstrip()) or [""]
    yield ""  # the end of a file ends its last document


def split_line(line: str, max_piece: int = MAX_PIECE) -> list[str]:
    """Return a line in pieces of at most ``max_piece`` characters, split before a space if there is one.

    Example:
        >>> split_line("to be or not", 6), split_line("abcdefgh", 6), split_line("")
        (['to be', ' or', ' not'], ['abcdef', 'gh'], [])
    """
    pieces = []
    while len(line) > max_piece:
        end = line.rfind(" ", 1, max_piece)  # not at 0: the piece would be empty, and end a document
        end = end if end > 0 else max_piece
        pieces.append(line[:end])
        line = line[end:]
    return [*pieces, line] if line else pieces


def _rows_of_dataset(path: Path, field: str) -> Any:
    """Return the rows of a data set that the library datasets has saved."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise ConfigError(f"{path} is a data set of the package datasets: pip install datasets") from error
    try:
        rows = datasets.load_from_disk(str(path))
    except Exception as error:  # the readers behind it have no common base error
        raise DataError(f"{path} cannot be read by datasets ({in_one_line(error)})") from error
    if isinstance(rows, dict):
        if "train" not in rows:
            raise DataError(f"{path} has the splits {shortened(', '.join(rows))}; allowed: a train split, or no splits")
        rows = rows["train"]
    if field not in rows.column_names:
        raise DataError(f"{path} has no column {field!r}; allowed: one of {shortened(', '.join(rows.column_names))}")
    return rows


def _documents(rows: Any, field: str) -> Iterator[str]:
    """Yield the pieces of rows, each of which is a document."""
    for row in rows:
        yield from (row[field], "")
