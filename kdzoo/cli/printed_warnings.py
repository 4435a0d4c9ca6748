"""How the command line prints warnings."""

import sys
import warnings
from typing import TextIO

from kdzoo.cli.ranks import is_other_rank
from kdzoo.config.processes import is_first_process
from kdzoo.errors import KdzooWarning


def print_as_lines() -> None:
    """Print the warnings of kdzoo as its other messages are printed, and by the first process only.

    Python prints the place and the line of the program that has caused a warning, which a user of the command has not
    written.
    """
    show = warnings.showwarning

    def show_in_a_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, KdzooWarning):
            show(message, category, filename, lineno, file, line)
        elif is_first_process() and not is_other_rank():
            print(f"kdzoo: {message}", file=sys.stderr, flush=True)

    warnings.showwarning = show_in_a_line
