"""Tiny Shakespeare in blocks of word pieces, for masked language models."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdzoo.data.sequences.tinyshakespeare import TinyShakespeare
from kdzoo.data.text import text_files
from kdzoo.data.text.blocks import BlockData


class ShakespeareText(BlockData):
    """The text of :class:`kdzoo.data.sequences.tinyshakespeare.TinyShakespeare`, each speech a document, with masked word pieces.

    Found and downloaded as there.

    Args:
        root: folder of the text; None for the usual places.
        vocab_size: tokens at most of the tokenizer that is trained when none is given.
        options: see :class:`kdzoo.data.text.blocks.BlockData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing or no text, or cannot be downloaded.
    """

    def __init__(self, *, root: str | Path | None = None, vocab_size: int = 4000, **options: Any) -> None:
        super().__init__(vocab_size=vocab_size, **options)
        self.source = TinyShakespeare(root=root)

    def prepare_data(self) -> None:
        """Download the text when no root is given and it is nowhere."""
        self.source.prepare_data()

    def reader(self) -> Callable[[], Iterator[str]]:
        """Read the text."""
        return text_files.reader(self.source.path(), "")
