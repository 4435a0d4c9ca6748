"""A report on the terminal: tables that fit its width, and sentences below them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdzoo.reports import content
from kdzoo.reports.leaderboard import Board

# What a cell takes beside its text, a column of padding and one that divides it from the next, and both margins.
PADDING, MARGIN = 2, 2


def show(report: Mapping[str, Any]) -> None:
    """Print the measurements and their summary on standard output."""
    _print(report, Console(highlight=False))


def to_text(report: Mapping[str, Any], width: int | None = None) -> str:
    """Return what :func:`show` prints, without styles.

    Args:
        report: The report.
        width: Number of columns; None for the width of the terminal, or 80 without one.
    """
    # In a notebook, rich would display the lines instead of writing them to the file.
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        _print(report, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def show_board(board: Board) -> None:
    """Print the ranks of runs, named by the settings in which they differ."""
    table = Table(title=board.title, box=box.SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("", justify="right")
    table.add_column("settings", overflow="fold")
    for name in ("student", "control", "gap", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, row in enumerate(board.rows, 1):
        settings = "\n".join(row.setting_lines) or row.setting_text
        gap = "" if row.gap_closed is None else f"{row.gap_closed:.0%}"
        cells = (str(rank), settings, row.text("student"), row.text("control"), gap, str(len(row.scores["student"])))
        table.add_row(*map(Text, cells))
    Console(highlight=False).print(table)


def tables(report: Mapping[str, Any], width: int) -> Iterator[Table]:
    """Yield tables of at most ``width`` columns, which share the models of the report among them.

    A table has at least one model, however narrow the terminal is. The best value of a row, except the teacher's, is
    bold.
    """
    names, rows = list(content.models(report)), content.rows(report)
    label_width = max(len(row.label) for row in rows) + PADDING
    widths = [max(len(name), *(len(row.cells[i]) for row in rows)) + PADDING for i, name in enumerate(names)]
    for n, chosen in enumerate(_in_groups(widths, width - label_width - MARGIN)):
        table = Table(title=content.title(report) if n == 0 else None, box=box.SIMPLE, padding=(0, 0, 0, 1))
        table.add_column("", no_wrap=True)
        for i in chosen:
            table.add_column(names[i].replace("_", " "), justify="right", no_wrap=True)
        for row in rows:
            cells = [Text(row.cells[i], style="bold" if i == row.best else "") for i in chosen]
            if any(cell.plain for cell in cells):
                table.add_row(row.label, *cells)
        yield table


def _print(report: Mapping[str, Any], console: Console) -> None:
    for table in tables(report, console.width):
        console.print(table)
    for sentence in content.sentences(report):
        console.print(sentence, markup=False)


def _in_groups(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the numbers of consecutive columns that fit into the room together."""
    group: list[int] = []
    for i, width in enumerate(widths):
        if group and sum(widths[j] for j in group) + width > room:
            yield group
            group = []
        group.append(i)
    yield group
