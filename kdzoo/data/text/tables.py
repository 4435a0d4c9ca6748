"""Reading labelled texts from files: tab-separated, comma-separated, or JSON lines."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdzoo.data.text.text_files import JSON_LINES, lines, records
from kdzoo.errors import DataError, shortened


class Table(NamedTuple):
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


def read_table(path: str | Path, text_field: str, label_field: str) -> Table:
    """Return the texts and labels of a file.

    A .csv file has the usual quotes; in a .tsv file a quote is an ordinary character, as in GLUE. The first line of
    both names the columns. A .jsonl or .json file has one record on each line.

    Args:
        path: The file.
        text_field: Column of the text.
        label_field: Column of the label; in a JSON record it may be an integer.

    Raises:
        DataError: The file is missing, not text, or empty, its name has another ending, or a row has no such field.
    """
    path = Path(path).expanduser()
    if path.suffix in JSON_LINES:
        rows: Iterator[tuple[int, dict[str, Any]]] = records(path)
    elif path.suffix in (".tsv", ".csv"):
        rows = _columns(path)
    else:
        raise DataError(f"{path} is not a table; allowed: a file that ends in .tsv, .csv, .jsonl or .json")
    table = Table([], [])
    for number, row in rows:
        table.texts.append(_field(path, number, row, text_field, str))
        table.labels.append(str(_field(path, number, row, label_field, str | int)))
    if not table.texts:
        raise DataError(f"{path} has no rows; allowed: at least 1")
    return table


def classes_of(labels: list[str]) -> tuple[str, ...]:
    """Return the different labels in order: by value if all are integers, else alphabetically.

    Example:
        >>> classes_of(["10", "9", "9"]), classes_of(["no", "10", "9"])
        (('9', '10'), ('10', '9', 'no'))
    """
    distinct = sorted(set(labels))
    try:
        # "10" comes after "9" then, and the classes of a file with integer labels 0..C-1 keep their numbers.
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(distinct)


def _columns(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the fields of each row of a .tsv or .csv file."""
    quotes: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    # newline="": the reader itself must see line ends within quotes. Fields beyond the columns get the name "".
    rows = csv.DictReader(lines(path, newline=""), restkey="", **quotes)
    try:
        for row in rows:
            if "" in row:
                problem = f"has more than the {len(rows.fieldnames or ())} columns"
                raise DataError(
                    f"{path}, line {rows.line_num} {problem}; allowed: {shortened(', '.join(rows.fieldnames or ()))}"
                )
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num} cannot be read ({error})") from error


def _field(path: Path, number: int, row: dict[str, Any], name: str, kind: Any) -> Any:
    """Return a field of the row in line ``number``, which must be of a type."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, kind):  # a bool is an int in Python
        raise DataError(f"{path}, line {number} has no {name!r}; allowed: one of {shortened(', '.join(row))}")
    return value
