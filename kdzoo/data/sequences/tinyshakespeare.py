"""Tiny Shakespeare, the standard small text for character-level language models."""

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
    """1,115,394 characters of Shakespeare's plays (Karpathy 2015), 65 different ones, in chunks of equal length.

    The first 90 % of the text are for training, the next 5 % for val and the last 5 % for test. Each split is divided
    into consecutive chunks, the last of which may be shorter, so that every character occurs once in an epoch. The end
    of a chunk is not predicted (its target is ``IGNORE``), and the model begins a chunk without the text before it.

    ``input.txt`` is looked for in ``<root>/tinyshakespeare`` and ``<root>``; without ``root``, in the same way below
    $KDZOO_DATA and ~/.cache/kdzoo, and ``prepare_data()`` downloads it to the latter if it is in neither.

    Args:
        root: Folder of the text; None for the usual places.
        chunk_length: Characters of a chunk, >= 1.
        train_size: Use only this many training chunks, the first ones; None for all.
        options: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the file is missing, not text, or cannot be downloaded.
    """

    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    sha256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

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
        """Download the text if no root is given and no usual place has it."""
        if self.root is None and search_root(None, _FOLDER, [_FILE]) is None:
            download(self.url, cache_root() / _FOLDER / _FILE, self.sha256)

    def path(self) -> Path:
        """Return the path of the text.

        Raises:
            DataError: No folder has it.
        """
        return find_root(self.root, _FOLDER, [_FILE]) / _FILE

    def load(self) -> Corpus:
        """Read the text and divide it."""
        path = self.path()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as text ({error})") from error
        symbols, tokens = tokenise(text)
        # Integer arithmetic: a product with 0.9 could be rounded differently. 90 % for training is Karpathy's choice.
        ends = [0, len(tokens) * 90 // 100, len(tokens) * 95 // 100, len(tokens)]
        train, val, test = (chunks(tokens[start:end], self.chunk_length) for start, end in pairwise(ends))
        train = train.select(take_rows(torch.arange(len(train)), self.train_size))
        return Corpus(train, val, test, symbols, has_ends=False)


def tokenise(text: str) -> tuple[tuple[str, ...], Tensor]:
    """Return the different characters in order, and the index of each character of the text among them ``[n]``.

    Example:
        >>> tokenise("abca")
        (('a', 'b', 'c'), tensor([0, 1, 2, 0]))
    """
    # Four bytes per character make the text an array, which is much faster than a loop over a million characters.
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    distinct, tokens = np.unique(codes, return_inverse=True)
    return tuple(map(chr, distinct.tolist())), torch.from_numpy(tokens.astype(np.int64))


def chunks(tokens: Tensor, length: int) -> TokenSequences:
    """Return consecutive chunks of a text ``[n]``; the last one may be shorter.

    Example:
        >>> chunks(torch.arange(5), 2).to_lists()
        [[0, 1], [2, 3], [4]]
    """
    lengths = torch.full((-(-len(tokens) // length),), length)  # the quotient rounded up
    if len(tokens) % length:
        lengths[-1] = len(tokens) % length
    return TokenSequences(tokens, lengths)
