"""Text as blocks of tokens of one length, kept in a file that is mapped into memory.

A text is divided by its characters: the first ones for train, then val, then test, each of which is packed by itself.
Blocks hold the tokens of one document after the other, with a separator between two (Liu et al. 2019, RoBERTa,
arXiv:1907.11692, section 4.2, FULL-SENTENCES).
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kdzoo.errors import ConfigError, DataError
from kdzoo.storage.atomic import write_file, write_text

PARTS = ("train", "val", "test")
VERSION = "kdzoo-blocks-1"
_TOGETHER = 1024
"""Pieces that are tokenised, and blocks that are written, at a time."""


class Marks(NamedTuple):
    """Ids of the tokens that begin a block, end it and separate documents, and fill up the last one."""

    begin: int
    end: int
    pad: int


@dataclass(frozen=True)
class DividedText:
    """A text, read piece by piece, and where its parts end.

    Args:
        read: reads the pieces from the beginning; an empty one ends a document.
        ends: characters before the ends of train and val; a piece belongs where it begins.
        digest: SHA-256 (hex) of the pieces.
    """

    read: Callable[[], Iterator[str]]
    ends: tuple[int, int]
    digest: str

    @classmethod
    def of(cls, read: Callable[[], Iterator[str]], val_size: float, test_size: float) -> "DividedText":
        """Divide a text, which is read once for it, by fractions of its characters.

        Raises:
            ConfigError: nothing would be left to train on.
            DataError: the text is empty.

        Example:
            >>> text = DividedText.of(lambda: iter(["aaaa", "", "bb", "cc", "dd"]), 0.2, 0.2)
            >>> [(part, piece) for part, piece in text.pieces()]
            [(0, 'aaaa'), (0, ''), (0, 'bb'), (1, 'cc'), (2, 'dd')]
        """
        if val_size + test_size >= 1:
            raise ConfigError(f"val_size={val_size} and test_size={test_size} leave nothing; allowed: below 1 together")
        digest, total = hashlib.sha256(), 0
        for piece in read():
            digest.update(piece.encode(errors="surrogatepass") + b"\n")
            total += len(piece)
        if not total:
            raise DataError("the text is empty; allowed: at least 1 character")
        n_test, n_val = round(test_size * total), round(val_size * total)
        return cls(read, (total - n_test - n_val, total - n_test), digest.hexdigest())

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Yield the number of the part and the piece, in order."""
        seen = 0
        for piece in self.read():
            yield bisect_right(self.ends, seen), piece
            seen += len(piece)

    def train(self) -> "_Train":
        """Return the pieces of the train part, which can be read several times."""
        return _Train(self)


class _Train(Iterable[str]):
    """The pieces of the train part."""

    def __init__(self, text: DividedText) -> None:
        self.text = text

    def __iter__(self) -> Iterator[str]:
        for part, piece in self.text.pieces():
            if part:
                return
            yield piece


def pack(pieces: Iterable[Sequence[int]], block_size: int, marks: Marks) -> Iterator[list[int]]:
    """Yield blocks: the begin mark, ``block_size`` - 2 tokens, the end mark; the last one is filled up.

    No token is lost, and the order is kept. A document that ends within a block is followed by the end mark.

    Args:
        pieces: tokens; an empty piece ends a document.
        block_size: >= 3.
        marks: ids.

    Example:
        >>> list(pack([[5, 6], [7], [], [8, 9, 5]], 5, Marks(2, 3, 0)))
        [[2, 5, 6, 7, 3], [2, 8, 9, 5, 3]]
        >>> list(pack([[5], [], [6], []], 6, Marks(2, 3, 0)))
        [[2, 5, 3, 6, 3, 0]]
    """
    room = block_size - 2
    block: list[int] = []
    at_border = False
    for piece in pieces:
        if at_border and block and len(piece):
            block.append(marks.end)
        at_border = not len(piece)
        rest = [*block, *piece]
        whole = len(rest) // room * room
        for start in range(0, whole, room):
            yield [marks.begin, *rest[start : start + room], marks.end]
        block = rest[whole:]
    if block:
        yield [marks.begin, *block, marks.end, *[marks.pad] * (room - len(block))]


@dataclass(frozen=True)
class Packed:
    """The blocks of all parts, one part after the other.

    Args:
        ids: unsigned [n, block_size], mapped from a file.
        rows: number of blocks of train, val and test.
        counts: how often each token is in the train part, int64 [V].
    """

    ids: npt.NDArray[Any]
    rows: tuple[int, int, int]
    counts: npt.NDArray[np.int64]

    def part(self, number: int) -> npt.NDArray[Any]:
        """Return the blocks of one part, not read yet."""
        start = sum(self.rows[:number])
        return self.ids[start : start + self.rows[number]]


def packed(
    text: DividedText, encode: Callable[[list[str]], list[list[int]]], block_size: int, marks: Marks, vocab_size: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the number of the part and some of its blocks [m, block_size], in order.

    Args:
        text: the text.
        encode: returns the tokens of each of several pieces.
        block_size: tokens of a block, >= 3.
        marks: ids.
        vocab_size: V, which decides on the type: uint16 or uint32.
    """
    kind = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    for part, pieces in groupby(text.pieces(), key=lambda pair: pair[0]):
        blocks = pack(_encoded((piece for _, piece in pieces), encode), block_size, marks)
        while some := list(islice(blocks, _TOGETHER)):
            yield part, np.array(some, kind)


def _encoded(pieces: Iterator[str], encode: Callable[[list[str]], list[list[int]]]) -> Iterator[list[int]]:
    while some := list(islice(pieces, _TOGETHER)):
        yield from encode(some)


def save(folder: Path, blocks: Iterable[tuple[int, npt.NDArray[Any]]], block_size: int, vocab_size: int) -> None:
    """Write blocks to a folder, as they come: the file is whole once ``blocks.json`` is there."""
    rows, counts, kind = [0, 0, 0], np.zeros(vocab_size, np.int64), "uint16"

    def write(temporary: Path) -> None:
        nonlocal kind
        with temporary.open("wb") as file:
            for part, some in blocks:
                file.write(some.tobytes())
                kind = some.dtype.name
                rows[part] += len(some)
                if part == 0:
                    counts[:] += np.bincount(some.reshape(-1), minlength=vocab_size)

    write_file(folder / "blocks.bin", write)
    about = {"block_size": block_size, "dtype": kind, "rows": rows, "counts": counts.tolist()}
    write_text(folder / "blocks.json", json.dumps(about))


def load(folder: Path) -> Packed | None:
    """Return the blocks that were saved in a folder, mapped into memory; None if they are not all there."""
    try:
        about = json.loads((folder / "blocks.json").read_text())
        shape = (sum(about["rows"]), about["block_size"])
        kind = np.dtype(about["dtype"])
        if (folder / "blocks.bin").stat().st_size != shape[0] * shape[1] * kind.itemsize:
            return None
        ids = np.memmap(folder / "blocks.bin", kind, "r", shape=shape)
    except (OSError, ValueError, KeyError):
        return None
    return Packed(ids, tuple(about["rows"]), np.array(about["counts"], np.int64))


def key(*values: Any) -> str:
    """Return the name of the folder or file of what was made from some values (hex)."""
    return hashlib.sha256(json.dumps([VERSION, *values]).encode()).hexdigest()[:32]
