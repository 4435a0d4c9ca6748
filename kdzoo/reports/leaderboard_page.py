"""The files of a leaderboard: a page that needs nothing else, its figures, and a table of plain numbers."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from kdzoo import plotting
from kdzoo.config.override_values import as_override
from kdzoo.reports.html import embedded, template
from kdzoo.reports.leaderboard import Board, Run, write_csv
from kdzoo.storage import atomic


def write(boards: Sequence[Board], folder: Path, title: str) -> Path:
    """Write ``leaderboard.html``, ``leaderboard.csv`` and a figure for each board; return the path of the page.

    Args:
        boards: The boards.
        folder: Folder for the files; it is made if it is missing.
        title: Heading of the page.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    with atomic.explained_errors(folder / "leaderboard.csv"):
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(boards, folder / "leaderboard.csv")
    stems = [f"{board.data}_{board.metric}" for board in boards]
    # Trial runs have a board of their own, for the same data and score.
    names = [stem if stems.count(stem) == 1 else f"{stem}_{i}" for i, stem in enumerate(stems, 1)]
    figures = [
        list(embedded(folder, _draw(board, folder / f"{n}.png"))) for board, n in zip(boards, names, strict=True)
    ]

    def link(run: Run) -> str:
        return Path(os.path.relpath(run.folder / "report.html", folder)).as_posix()

    page = template("leaderboard.html.j2").render(
        title=title,
        verdict=boards[0].best if len(boards) == 1 else "",
        boards=list(zip(boards, figures, strict=True)),
        link=link,
        as_override=as_override,
    )
    path = folder / "leaderboard.html"
    path.write_text(page, encoding="utf-8")
    return path


def _draw(board: Board, path: Path) -> list[str]:
    """Draw the scores over the settings; return the name of the file, if there is more than one row to draw."""
    rows = [row for row in board.rows if math.isfinite(row.score)]
    if len(rows) < 2 or not board.varied:
        return []
    plotting.score_over_settings(
        [row.settings for row in rows],
        [row.score for row in rows],
        [row.deviation for row in rows],
        board.metric.replace("_", " "),
        path,
    )
    return [path.name]
