"""Reading labelled texts from files: tab-separated, comma-separated, or JSON lines."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdzoo.automata.exchange.lines import MAX_DIGITS
from kdzoo.data.text.text_files import JSON_LINES, lines, records
from kdzoo.errors import DataError, shortened

MISSING = ""
"""Label of a text without one."""
# Not a number, as programs write a missing value. Words such as NA and none may be the names of classes.
_NOT_A_NUMBER = "nan"


class Table(NamedTuple):
    """Texts and their labels, ``MISSING`` where there is none."""

    texts: list[str]
    labels: list[str]


def read_table(path: str | Path, text_field: str, label_field: str) -> Table:
    """Return the texts and labels of a file.

    A .csv file has the usual quotes; in a .tsv file a quote is an ordinary character, as in GLUE. The first line of
    both names the columns. A .jsonl or .json file has one record on each line. White space around names and labels is
    not a part of them. A label that is empty, NaN, or null in JSON is missing.

    Args:
        path: The file.
        text_field: Column of the text.
        label_field: Column of the label; in a JSON record it may be an integer, true or false.

    Raises:
        DataError: The file is missing, not text, or empty, its name has another ending, two columns have one of the
            names, or a row has no such field.
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
        table.texts.append(_text(path, number, row, text_field))
        table.labels.append(_label(path, number, row, label_field))
    if not table.texts:
        raise DataError(f"{path} has no rows; allowed: at least 1")
    return table


def with_missing(labels: list[str], ignore_index: int) -> list[str]:
    """Return labels with ``MISSING`` in place of the integer that stands for a missing one."""
    return [MISSING if _is_integer(label) and int(label) == ignore_index else label for label in labels]


def same_integers(tables: Sequence[Table]) -> list[Table]:
    """Return tables whose labels are written in one way if all are integers, so that "01" and "1" are one class."""
    labels = [label for table in tables for label in table.labels if label != MISSING]
    if not all(map(_is_integer, labels)):
        return list(tables)
    return [Table(texts, [label and str(int(label)) for label in own]) for texts, own in tables]


def classes_of(labels: list[str]) -> tuple[str, ...]:
    """Return the different labels in order, without missing ones: by value if all are integers, else alphabetically.

    Example:
        >>> classes_of(["10", "9", "", "9"]), classes_of(["no", "10", "9"])
        (('9', '10'), ('10', '9', 'no'))
    """
    distinct = sorted({*labels} - {MISSING})
    # "10" comes after "9" then, and the classes of a file with integer labels 0..C-1 keep their numbers.
    return tuple(sorted(distinct, key=int) if all(map(_is_integer, distinct)) else distinct)


def _is_integer(label: str) -> bool:
    # isascii: isdigit is also true for digits such as a superscript two, which int() rejects.
    return label.isascii() and label.removeprefix("-").isdigit() and len(label) <= MAX_DIGITS


def _columns(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the fields of each row of a .tsv or .csv file."""
    quotes: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    # newline="": the reader itself must see line ends within quotes. Fields beyond the columns get the name "".
    rows = csv.DictReader(lines(path, newline=""), restkey="", **quotes)
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        if twice := next((name for name in rows.fieldnames if rows.fieldnames.count(name) > 1), None):
            raise DataError(f"{path} has two columns {twice!r}; allowed: one name for each column")
        for row in rows:
            if "" in row:
                problem = f"has more than the {len(rows.fieldnames or ())} columns"
                raise DataError(
                    f"{path}, line {rows.line_num} {problem}; allowed: {shortened(', '.join(rows.fieldnames or ()))}"
                )
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num} cannot be read ({error})") from error


def _label(path: Path, number: int, row: dict[str, Any], name: str) -> str:
    """Return the label of the row in line ``number``, ``MISSING`` if it is empty or not a number."""
    value = row.get(name)
    if value is None and name in row and path.suffix in JSON_LINES:  # null; in a table, a row that is too short
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # programs that know a missing value only as a number write all labels as 1.0
    if not isinstance(value, str | int):
        raise _without(path, number, row, name)
    label = str(value).strip()
    return MISSING if label.lower() == _NOT_A_NUMBER else label


def _text(path: Path, number: int, row: dict[str, Any], name: str) -> str:
    """Return the text of the row in line ``number``."""
    value = row.get(name)
    if not isinstance(value, str):
        raise _without(path, number, row, name)
    return value


def _without(path: Path, number: int, row: dict[str, Any], name: str) -> DataError:
    return DataError(f"{path}, line {number} has no {name!r}; allowed: one of {shortened(', '.join(row))}")
