"""Packing of a text into blocks of tokens of one length, kept in a file that is mapped into memory.

A text is divided by its characters: the first ones for train, then val, then test; each split is packed separately.
Blocks contain the tokens of one document after the other, with a separator between two (Liu et al. 2019, RoBERTa,
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

from kdzoo.errors import ConfigError, DataError, RunFolderError
from kdzoo.storage import checked_json
from kdzoo.storage.atomic import write_file
from kdzoo.storage.checksums import sha256_of

# Part of every file name in the cache: raise the number when the format or the packing changes.
VERSION = "kdzoo-blocks-1"
# Pieces that are tokenised, and blocks that are written, at a time: enough for the tokenizer to use several threads,
# and few enough that a text of any size needs little memory.
_CHUNK_SIZE = 1024


class Marks(NamedTuple):
    """Ids of the tokens that begin a block, end it (and separate documents), and pad the last one."""

    begin: int
    end: int
    pad: int


@dataclass(frozen=True)
class DividedText:
    """A text that is read piece by piece, and the ends of its splits.

    Args:
        read: Reads the pieces from the beginning; an empty piece ends a document.
        ends: Number of characters before the end of train and before the end of val; a piece belongs to the split in
            which it begins.
        digest: SHA-256 (hex) of the pieces.
    """

    read: Callable[[], Iterator[str]]
    ends: tuple[int, int]
    digest: str

    @classmethod
    def of(cls, read: Callable[[], Iterator[str]], val_size: float, test_size: float) -> "DividedText":
        """Divide a text by fractions of its characters; it is read once to count them.

        Args:
            read: Reads the pieces from the beginning; an empty piece ends a document.
            val_size: Share of the text for val, in [0, 1).
            test_size: Share of the text for test, in [0, 1).

        Raises:
            ConfigError: Nothing would be left to train on.
            DataError: The text is empty.

        Example:
            >>> text = DividedText.of(lambda: iter(["aaaa", "", "bb", "cc", "dd"]), 0.2, 0.2)
            >>> [(split, piece) for split, piece in text.pieces()]
            [(0, 'aaaa'), (0, ''), (0, 'bb'), (1, 'cc'), (2, 'dd')]
        """
        if val_size + test_size >= 1:
            raise ConfigError(f"val_size={val_size} and test_size={test_size} leave nothing; allowed: below 1 together")
        digest, total = hashlib.sha256(), 0
        for piece in read():
            # JSON may contain half of a surrogate pair, which UTF-8 cannot encode otherwise.
            digest.update(piece.encode(errors="surrogatepass") + b"\n")
            total += len(piece)
        if not total:
            raise DataError("the text is empty; allowed: at least 1 character")
        n_test, n_val = round(test_size * total), round(val_size * total)
        return cls(read, (total - n_test - n_val, total - n_test), digest.hexdigest())

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Yield for each piece, in order, the number of its split (0 train, 1 val, 2 test) and the piece."""
        position = 0
        for piece in self.read():
            yield bisect_right(self.ends, position), piece
            position += len(piece)

    def train(self) -> "_TrainPieces":
        """Return the pieces of the train split, which can be iterated over several times."""
        return _TrainPieces(self)


class _TrainPieces(Iterable[str]):
    """The pieces of the train split."""

    def __init__(self, text: DividedText) -> None:
        self.text = text

    def __iter__(self) -> Iterator[str]:
        for split, piece in self.text.pieces():
            if split:  # train is the first split, so the rest need not be read
                return
            yield piece


def pack(pieces: Iterable[Sequence[int]], block_size: int, marks: Marks) -> Iterator[list[int]]:
    """Yield blocks: the begin mark, ``block_size`` - 2 tokens, the end mark; the last block is padded.

    All tokens are used once, in order. A document that ends within a block is followed by the end mark.

    Args:
        pieces: Token ids; an empty piece ends a document.
        block_size: Tokens of a block, >= 3.
        marks: Ids of the special tokens.

    Example:
        >>> list(pack([[5, 6], [7], [], [8, 9, 5]], 5, Marks(2, 3, 0)))
        [[2, 5, 6, 7, 3], [2, 8, 9, 5, 3]]
        >>> list(pack([[5], [], [6], []], 6, Marks(2, 3, 0)))
        [[2, 5, 3, 6, 3, 0]]
    """
    room = block_size - 2
    pending: list[int] = []  # tokens that do not fill a block yet
    document_ended = False
    for piece in pieces:
        # At the start of a block no separator is needed: its begin mark separates as well.
        if document_ended and pending and len(piece):
            pending.append(marks.end)
        document_ended = not len(piece)
        tokens = [*pending, *piece]
        used = len(tokens) // room * room
        for start in range(0, used, room):
            yield [marks.begin, *tokens[start : start + room], marks.end]
        pending = tokens[used:]
    if pending:
        yield [marks.begin, *pending, marks.end, *[marks.pad] * (room - len(pending))]


@dataclass(frozen=True)
class PackedBlocks:
    """The blocks of all splits, one split after the other.

    Args:
        ids: Token ids, unsigned ``[n, block_size]``, mapped from a file.
        rows: Number of blocks of train, val and test.
        counts: How often each token occurs in train, int64 ``[V]``.
    """

    ids: npt.NDArray[Any]
    rows: tuple[int, int, int]
    counts: npt.NDArray[np.int64]

    def split(self, index: int) -> npt.NDArray[Any]:
        """Return the blocks of one split (0 train, 1 val, 2 test) as a view that reads the file when it is used."""
        start = sum(self.rows[:index])
        return self.ids[start : start + self.rows[index]]


def pack_text(
    text: DividedText, encode: Callable[[list[str]], list[list[int]]], block_size: int, marks: Marks, vocab_size: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield chunks of blocks in order, each with the number of its split (0 train, 1 val, 2 test).

    Args:
        text: The text.
        encode: Returns the token ids of each of several pieces.
        block_size: Tokens of a block, >= 3.
        marks: Ids of the special tokens.
        vocab_size: Number of tokens V; it decides whether ids are uint16 or uint32.

    Yields:
        The number of the split, and blocks ``[m, block_size]``.
    """
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32  # two bytes hold 2^16 different ids
    for split, pieces in groupby(text.pieces(), key=lambda pair: pair[0]):
        blocks = pack(_encoded((piece for _, piece in pieces), encode), block_size, marks)
        while chunk := list(islice(blocks, _CHUNK_SIZE)):
            yield split, np.array(chunk, dtype)


def _encoded(pieces: Iterator[str], encode: Callable[[list[str]], list[list[int]]]) -> Iterator[list[int]]:
    """Yield the token ids of pieces, which are encoded many at a time."""
    while chunk := list(islice(pieces, _CHUNK_SIZE)):
        yield from encode(chunk)


def save(folder: Path, chunks: Iterable[tuple[int, npt.NDArray[Any]]], block_size: int, vocab_size: int) -> None:
    """Write chunks of blocks to a folder one by one, so that they need not fit into memory.

    Args:
        folder: Where to write ``blocks.bin`` and then ``blocks.json``; the file is complete once the latter exists.
        chunks: See :func:`pack_text`.
        block_size: Tokens of a block.
        vocab_size: Number of tokens V.
    """
    rows, counts, dtype = [0, 0, 0], np.zeros(vocab_size, np.int64), "uint16"

    def write(temporary: Path) -> None:
        nonlocal dtype
        with temporary.open("wb") as file:
            for split, chunk in chunks:
                file.write(chunk.tobytes())
                dtype = chunk.dtype.name
                rows[split] += len(chunk)
                if split == 0:  # tokens of val and test must have no influence on training
                    counts[:] += np.bincount(chunk.reshape(-1), minlength=vocab_size)

    write_file(folder / "blocks.bin", write)
    description = {"block_size": block_size, "dtype": dtype, "rows": rows, "counts": counts.tolist()}
    checked_json.write(folder / "blocks.json", {**description, "sha256": sha256_of(folder / "blocks.bin")})


def load(folder: Path) -> PackedBlocks | None:
    """Return the blocks that were saved in a folder, mapped into memory; None if they are missing or damaged."""
    try:
        description = checked_json.read(folder / "blocks.json")
        shape = (sum(description["rows"]), description["block_size"])
        dtype = np.dtype(description["dtype"])
        if sha256_of(folder / "blocks.bin") != description["sha256"]:
            return None
        ids = np.memmap(folder / "blocks.bin", dtype, "r", shape=shape)
    except (OSError, ValueError, KeyError, RunFolderError):  # the caller packs the text again
        return None
    return PackedBlocks(ids, tuple(description["rows"]), np.array(description["counts"], np.int64))


def key(*values: Any) -> str:
    """Return the name in the cache (32 hex digits) of what was made from some values."""
    return hashlib.sha256(json.dumps([VERSION, *values]).encode()).hexdigest()[:32]
