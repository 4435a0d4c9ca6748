"""The documentation strings of Python's standard library, English text that is available offline on every machine."""

import ast
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kdzoo.data.text.blocks import BlockData

# The syntax nodes that can have a documentation string.
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What a statement's lists hold that may contain further statements.
_BLOCK_ITEMS = (ast.stmt, ast.excepthandler, ast.match_case)


class Docstrings(BlockData):
    """Documentation strings of the top-level modules of the standard library, each a document, with masked tokens.

    The text depends on the version of Python that runs, and so do numbers measured on it.

    Args:
        vocab_size: Largest number of tokens of a trained tokenizer, >= 6.
        options: See :class:`kdzoo.data.text.blocks.BlockData`.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(self, *, vocab_size: int = 4000, **options: Any) -> None:
        super().__init__(vocab_size=vocab_size, **options)

    def reader(self) -> Callable[[], Iterator[str]]:
        """Return a function that reads the documentation strings, module by module."""
        return lambda: iter(docstrings())


@cache
def docstrings() -> tuple[str, ...]:
    """Return the lines of all documentation strings, with an empty line at the end of each."""
    pieces: list[str] = []
    # Sorted, since the order of a folder's files differs between file systems.
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for docstring in docstrings_of(path):
            # An empty piece ends a document, so the blank lines within one are left out.
            pieces += [line for line in docstring.splitlines() if line.strip()]
            pieces.append("")
    return tuple(pieces)


def docstrings_of(path: Path) -> Iterator[str]:
    """Yield the documentation strings of a source file: the module's, then those of its classes and functions."""
    level: list[ast.AST] = [ast.parse(path.read_bytes())]
    # Level by level, the order of ``ast.walk``: texts in another order would be divided and packed differently.
    while level:
        for node in level:
            if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
                yield docstring
        # Definitions are in statements only. Expressions, which are most nodes, are not looked into.
        level = [child for node in level for child in _statements(node)]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements, exception handlers and cases directly in a syntax node, in order."""
    for name in node._fields:
        children = getattr(node, name, None)
        if isinstance(children, list) and children and isinstance(children[0], _BLOCK_ITEMS):
            yield from children
