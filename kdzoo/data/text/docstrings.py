"""The documentation strings of Python's standard library: English text that every machine has, for masked models."""

import ast
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kdzoo.data.text.blocks import BlockData

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Docstrings(BlockData):
    """Documentation strings of the top modules of the standard library, each a document, with masked word pieces.

    The text is that of the running Python, so figures hold for its version only.

    Args:
        vocab_size: tokens at most of the tokenizer that is trained when none is given.
        options: see :class:`kdzoo.data.text.blocks.BlockData`.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, *, vocab_size: int = 4000, **options: Any) -> None:
        super().__init__(vocab_size=vocab_size, **options)

    def reader(self) -> Callable[[], Iterator[str]]:
        """Read the strings, module by module."""
        return lambda: iter(docstrings())


@cache
def docstrings() -> tuple[str, ...]:
    """Return the lines of all documentation strings, and an empty one after each string."""
    pieces: list[str] = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, _DOCUMENTED) and (found := ast.get_docstring(node)):
                pieces += [line for line in found.splitlines() if line.strip()]
                pieces.append("")
    return tuple(pieces)
