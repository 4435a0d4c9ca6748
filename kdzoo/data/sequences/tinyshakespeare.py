"""Tiny Shakespeare, the usual small text for character-level language models."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.data.files.download import download
from kdzoo.data.files.folders import cache_root, find_root, search_root
from kdzoo.data.loading.splits import take_rows
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences

_FOLDER, _FILE = "tinyshakespeare", "input.txt"


class TinyShakespeare(TokenSequenceData):
    """1,115,394 characters of Shakespeare's plays (Karpathy 2015), 65 different ones, in pieces of equal length.

    The first 90 % of the text are for training, the next 5 % for val and the last 5 % for test. Each part is cut
    into consecutive pieces, the last of which may be shorter, so that every character is met once in an epoch. A
    piece is no sentence: its end is not predicted (its target is ``IGNORE``), and the model begins it without
    knowing what came before.

    ``input.txt`` is looked for in ``<root>/tinyshakespeare`` and ``<root>``. Without ``root``, the roots are
    $KDZOO_DATA and ~/.cache/kdzoo, and ``prepare_data()`` downloads to the latter what is in neither.

    Args:
        root: folder of the text; None for the usual places.
        chunk_length: characters of a piece, >= 1.
        train_size: train on so many pieces only, the first ones; None for all.
        options: see :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing or no text, or cannot be downloaded.
    """

    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    md5 = "6fb458f1232090904fb40fe944165e91"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        chunk_length: int = 128,
        train_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = root
        self.chunk_length = integer("chunk_length", chunk_length, 1)
        self.train_size = None if train_size is None else integer("train_size", train_size, 1)

    def prepare_data(self) -> None:
        """Download the text when no root is given and it is nowhere."""
        if self.root is None and search_root(None, _FOLDER, [_FILE]) is None:
            download(self.url, cache_root() / _FOLDER / _FILE, self.md5)

    def path(self) -> Path:
        """Return where the text is.

        Raises:
            DataError: it is nowhere.
        """
        return find_root(self.root, _FOLDER, [_FILE]) / _FILE

    def load(self) -> Corpus:
        """Read the text and cut it."""
        path = self.path()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as text ({error})") from error
        symbols, tokens = tokenise(text)
        ends = [0, len(tokens) * 90 // 100, len(tokens) * 95 // 100, len(tokens)]
        train, val, test = (cut(tokens[a:b], self.chunk_length) for a, b in pairwise(ends))
        train = train.select(take_rows(torch.arange(len(train)), self.train_size))
        return Corpus(train, val, test, symbols, has_ends=False)


def tokenise(text: str) -> tuple[tuple[str, ...], Tensor]:
    """Return the different characters in order, and the place of each character of the text among them [n].

    Example:
        >>> tokenise("abca")
        (('a', 'b', 'c'), tensor([0, 1, 2, 0]))
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    distinct, places = np.unique(codes, return_inverse=True)
    return tuple(map(chr, distinct.tolist())), torch.from_numpy(places.astype(np.int64))


def cut(tokens: Tensor, length: int) -> TokenSequences:
    """Return consecutive pieces of a text [n]; the last one may be shorter.

    Example:
        >>> cut(torch.arange(5), 2).to_lists()
        [[0, 1], [2, 3], [4]]
    """
    lengths = torch.full((-(-len(tokens) // length),), length)
    if len(tokens) % length:
        lengths[-1] = len(tokens) % length
    return TokenSequences(tokens, lengths)
