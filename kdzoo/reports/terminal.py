"""A report on the terminal: tables that fit its width, and sentences below them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
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
    rows = []
    for row in board.rows:
        cells = row.text("student"), row.text("control"), row.gap_text, str(len(row.scores["student"]))
        rows.append((row.setting_lines or [row.setting_text], cells))
    heads: dict[str, JustifyMethod] = dict.fromkeys(("student", "control", "gap", "seeds"), "right")
    show_named(board.title, "settings", heads, rows)


def show_named(
    title: str, named: str, heads: Mapping[str, JustifyMethod], rows: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> None:
    """Print numbered rows of cells, with the lines that name each beside its cells, or below all rows if they are long.

    Args:
        title: Title of the table.
        named: Heading of the names.
        heads: How the cells below each heading are justified.
        rows: The lines and the cells of each row. A line is broken only if it is longer than the terminal is wide.
    """
    console, number_width = Console(highlight=False), len(str(len(rows)))
    name_width = max([len(named), *(len(line) for lines, _ in rows for line in lines)])
    cell_widths = [max([len(head), *(len(cells[i]) for _, cells in rows)]) for i, head in enumerate(heads)]
    widths = [number_width, name_width, *cell_widths]
    is_beside = sum(widths) + PADDING * len(widths) + MARGIN <= console.width
    table, names = _numbered(title), _numbered(None)
    for of_names in (table, names) if is_beside else (names,):
        of_names.add_column(named, overflow="fold")
    for head, justify in heads.items():
        table.add_column(head, justify=justify, overflow="fold")
    for i, (lines, cells) in enumerate(rows, 1):
        number, name = Text(str(i)), _text("\n".join(lines))
        table.add_row(number, *([name] if is_beside else []), *map(_text, cells))
        names.add_row(number, name)
    console.print(table)
    if not is_beside:
        console.print(names)


def _numbered(title: str | None) -> Table:
    table = Table(title=None if title is None else _text(title), box=box.SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("", justify="right", no_wrap=True)
    return table


def tables(report: Mapping[str, Any], width: int) -> Iterator[Table]:
    """Yield tables of at most ``width`` columns, which share the models of the report among them.

    A table has at least one model, however narrow the terminal is. The best value of a row, except the teacher's, is
    bold.
    """
    names, rows = list(content.models(report)), content.rows(report)
    label_width = max(len(row.label) for row in rows) + PADDING
    widths = [max(len(name), *(len(row.cells[i]) for row in rows)) + PADDING for i, name in enumerate(names)]
    for n, chosen in enumerate(_in_groups(widths, width - label_width - MARGIN)):
        table = Table(title=_text(content.title(report)) if n == 0 else None, box=box.SIMPLE, padding=(0, 0, 0, 1))
        table.add_column("", no_wrap=True)
        for i in chosen:
            table.add_column(_text(names[i].replace("_", " ")), justify="right", no_wrap=True)
        for row in rows:
            cells = [_text(row.cells[i], style="bold" if i == row.best else "") for i in chosen]
            if any(cell.plain for cell in cells):
                table.add_row(_text(row.label), *cells)
        yield table


def _print(report: Mapping[str, Any], console: Console) -> None:
    for table in tables(report, console.width):
        console.print(table)
    for sentence in content.sentences(report):
        console.print(_text(sentence))


def _text(value: str, style: str = "") -> Text:
    """Return text of a report as it is, without markup; a report from elsewhere sends the terminal no commands."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value), style=style)


def _in_groups(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the numbers of consecutive columns that fit into the room together."""
    group: list[int] = []
    for i, width in enumerate(widths):
        if group and sum(widths[j] for j in group) + width > room:
            yield group
            group = []
        group.append(i)
    yield group
