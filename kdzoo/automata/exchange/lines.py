"""Reading of text files line by line, with errors that name file and line."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from kdzoo.errors import DataError, shortened

# Of integers: more do not fit into 64 bits.
MAX_DIGITS = 18


class Line(str):
    """The stripped text of a line, with its file and its number, from 1.

    A subclass of str, so that a line can be split, matched and compared like any text.
    """

    path: Path
    number: int

    @classmethod
    def of(cls, text: str, path: Path, number: int) -> "Line":
        """Return the line with that text, file and number."""
        line = cls(text.strip())
        line.path, line.number = path, number
        return line

    def reject(self, problem: str) -> NoReturn:
        """Raise a DataError about this line.

        Example:
            >>> Line.of("x", Path("a.txt"), 3).reject("has no number")
            Traceback (most recent call last):
                ...
            kdzoo.errors.DataError: a.txt, line 3 has no number
        """
        raise DataError(f"{self.path}, line {self.number} {problem}")

    def integer(self, text: str, what: str, below: int | None = None) -> int:
        """Return ``text``, a part of this line, as an integer >= 0.

        Args:
            text: The text.
            what: What the number means, for the error message.
            below: Exclusive upper bound; None for none.

        Raises:
            DataError: If the text is not such an integer.
        """
        allowed = ">= 0" if below is None else f"in 0..{below - 1}"
        # int() would also accept "1_000", "+1" and digits of other scripts.
        is_integer = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
        if not is_integer or (below is not None and int(text) >= below):
            self.reject(f"has {what} {shortened(text)!r}; allowed: an integer {allowed}")
        return int(text)

    def decimal(self, text: str, what: str, least: float | int = 0, most: float | int = math.inf) -> float:
        """Return ``text``, a part of this line, as a float.

        Args:
            text: The text.
            what: What the number means, for the error message.
            least: Lower bound.
            most: Upper bound.

        Raises:
            DataError: If the text is not a number within the bounds.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # NaN fails both comparisons, so text that is not a number is rejected here as well.
        if not least <= value <= most:
            self.reject(f"has {what} {shortened(text)!r}; allowed: a number in {least:g}..{most:g}")
        return value


def read_lines(path: str | Path) -> Iterator[Line]:
    """Yield the lines of a file, including empty ones.

    Raises:
        DataError: If the file is missing or cannot be decoded as UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a text file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error
    # Only at line ends, which reading has made equal: str.splitlines also splits at form feeds and Unicode separators.
    contents = text.split("\n")
    for number, content in enumerate(contents if contents[-1] else contents[:-1], 1):
        yield Line.of(content, path, number)
