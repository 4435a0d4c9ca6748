"""Labelled texts from files: tab-separated, comma-separated, or JSON lines."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdzoo.data.text.text_files import JSON_LINES, lines, records
from kdzoo.errors import DataError


class Table(NamedTuple):
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


def read_table(path: str | Path, text_field: str, label_field: str) -> Table:
    """Return the texts and labels of a file.

    A .csv file has the usual quotes; in a .tsv file quotes are characters, as in GLUE; both begin with the names of
    their columns. A .jsonl or .json file has one record on each line, whose label may be an integer.

    Raises:
        DataError: the file is missing, no text or empty, its ending is another, or a row has no such field.
    """
    path = Path(path).expanduser()
    if path.suffix in JSON_LINES:
        rows: Iterator[tuple[int, dict[str, Any]]] = records(path)
    elif path.suffix in (".tsv", ".csv"):
        rows = _columns(path)
    else:
        raise DataError(f"{path} is no table; allowed: a file that ends in .tsv, .csv, .jsonl or .json")
    found = Table([], [])
    for number, row in rows:
        found.texts.append(_field(path, number, row, text_field, str))
        found.labels.append(str(_field(path, number, row, label_field, str | int)))
    if not found.texts:
        raise DataError(f"{path} has no row; allowed: at least 1")
    return found


def classes_of(labels: list[str]) -> tuple[str, ...]:
    """Return the different labels in order: of their values if all are integers, else of the alphabet.

    Example:
        >>> classes_of(["10", "9", "9"]), classes_of(["no", "10", "9"])
        (('9', '10'), ('10', '9', 'no'))
    """
    found = sorted(set(labels))
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(found)


def _columns(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    quotes: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    rows = csv.DictReader(lines(path, newline=""), restkey="", **quotes)
    try:
        for row in rows:
            if "" in row:
                problem = f"has more than the {len(rows.fieldnames or ())} columns"
                raise DataError(f"{path}, line {rows.line_num} {problem}; allowed: {', '.join(rows.fieldnames or ())}")
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num} cannot be read ({error})") from error


def _field(path: Path, number: int, row: dict[str, Any], name: str, kind: Any) -> Any:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise DataError(f"{path}, line {number} has no {name!r}; allowed: one of {', '.join(row)}")
    return value
