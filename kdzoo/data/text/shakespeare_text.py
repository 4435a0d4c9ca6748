"""Tiny Shakespeare in blocks of word pieces with masked tokens."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdzoo.data.sequences.tinyshakespeare import TinyShakespeare
from kdzoo.data.text import text_files
from kdzoo.data.text.blocks import BlockData


class ShakespeareText(BlockData):
    """Tiny Shakespeare with masked word pieces; each speech is a document.

    The file is found and downloaded as by :class:`kdzoo.data.sequences.tinyshakespeare.TinyShakespeare`.

    Args:
        root: Folder of the text; None for the usual places.
        vocab_size: Largest number of tokens of a trained tokenizer, >= 6.
        options: See :class:`kdzoo.data.text.blocks.BlockData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: The file is missing, not text, or cannot be downloaded.
    """

    def __init__(self, *, root: str | Path | None = None, vocab_size: int = 4000, **options: Any) -> None:
        super().__init__(vocab_size=vocab_size, **options)
        self.source = TinyShakespeare(root=root)

    def prepare_data(self) -> None:
        """Download the text if no root is given and no usual place has it."""
        self.source.prepare_data()

    def reader(self) -> Callable[[], Iterator[str]]:
        """Return a function that reads the text."""
        return text_files.reader(self.source.path(), "")  # a text file has no field
