"""Documentation strings of the standard library by the module that they come from: labelled text without a download."""

import os
from pathlib import Path
from typing import Any

from kdzoo.data.text.docstrings import docstrings_of
from kdzoo.data.text.tables import Table
from kdzoo.data.text.text_classes import ClassifiedTexts
from kdzoo.errors import DataError

# The modules with the most documentation strings, 80 to 220 each, that are single files in every supported Python.
MODULES = ("_pydecimal", "inspect", "ipaddress", "mailbox", "pydoc", "tarfile", "turtle", "typing")
# One string in five is for test, as evenly spread over each module as possible: neighbours describe similar functions.
TEST_PERIOD = 5


class DocstringModules(ClassifiedTexts):
    """About 1,100 documentation strings of eight modules of Python's standard library; the class is the module.

    A small set that is available on every machine, to try a method on; ``SST2`` is a benchmark. The texts depend on the
    version of Python that runs, and so do numbers measured on them.

    Args:
        vocab_size: Largest number of tokens of a trained tokenizer, >= 6.
        max_length: Number of tokens to which longer texts are truncated, special ones included, >= 3. The first
            sentences of a string say what it is about.
        options: See :class:`kdzoo.data.text.text_classes.ClassifiedTexts`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the source files of the standard library are not installed.
    """

    def __init__(self, *, vocab_size: int = 2000, max_length: int = 64, **options: Any) -> None:
        super().__init__(vocab_size=vocab_size, max_length=max_length, **options)

    def read(self) -> tuple[Table, Table]:
        """Read the documentation strings and divide those of each module."""
        train, test = Table([], []), Table([], [])
        for module in MODULES:
            path = Path(os.__file__).with_name(f"{module}.py")
            if not path.is_file():
                raise DataError(f"{path} is missing; an installation of Python with the sources of its library has it")
            for number, text in enumerate(docstrings_of(path)):
                table = test if number % TEST_PERIOD == TEST_PERIOD - 1 else train
                table.texts.append(text)
                table.labels.append(module)
        return train, test
