"""What a sweep prints: each job when it starts, and a table of all jobs at the end."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig

from kdzoo.errors import KdzooError

# Path of the file of a sweep: its first line describes the sweep, and each job adds a line on how it ended. An
# environment variable, because only these reach the processes that a Hydra launcher starts.
SWEEP = "KDZOO_SWEEP"


def announce(settings: DictConfig, job: Sequence[str]) -> None:
    """Say what starts now: importing PyTorch, before anything else can be shown, takes seconds."""
    chosen = settings.runtime.choices
    what = f"{chosen.distiller} on {chosen.data}, from {chosen.teacher} to {chosen.student}"
    if settings.mode == RunMode.MULTIRUN:
        sweep = json.loads(Path(os.environ[SWEEP]).read_text(encoding="utf-8").splitlines()[0])
        varied = [override for override in job if override not in sweep["arguments"]]
        # A sweeper that chooses the settings of a job from earlier ones does not know their number in advance.
        of_all = f" of {sweep['jobs']}" if sweep["jobs"] > 1 else ""
        what = f"job {settings.job.num + 1}{of_all}: {' '.join(varied) or what}"
    print(f"kdzoo: {what}", file=sys.stderr, flush=True)


def note(outcome: Mapping[str, Any]) -> None:
    """Note how a job ended, if it belongs to a sweep."""
    if SWEEP in os.environ:
        # Jobs of a parallel launcher append to one file; a short line is written in one piece.
        with open(os.environ[SWEEP], "a", encoding="utf-8") as notes:
            notes.write(json.dumps(outcome) + "\n")


@contextmanager
def summary(n_jobs: int, arguments: Sequence[str]) -> Iterator[None]:
    """Print how every job of a sweep ended, for every launcher that runs jobs on this machine."""
    with tempfile.NamedTemporaryFile("w+", prefix="kdzoo-sweep-", encoding="utf-8") as notes:
        notes.write(json.dumps({"jobs": n_jobs, "arguments": list(arguments)}) + "\n")
        notes.flush()
        os.environ[SWEEP] = notes.name
        try:
            yield
        finally:
            del os.environ[SWEEP]
            notes.seek(0)
            outcomes = [json.loads(line) for line in notes][1:]
            _print_sweep(outcomes)
            _write_page(outcomes, arguments)


def show_runs(folders: Sequence[Path], output: Path, title: str) -> None:
    """Print the ranks of the finished runs in some folders, and write their page and table to ``output``.

    Raises:
        KdzooError: There is no finished run, or a report cannot be read.
    """
    from kdzoo.reports import leaderboard, leaderboard_page, terminal

    boards = leaderboard.boards(leaderboard.read_runs(folders))
    for board in boards:
        terminal.show_board(board)
    page = leaderboard_page.write(boards, output, title)
    print(f"Report: {os.path.relpath(page)}, and leaderboard.csv beside it")


def _write_page(outcomes: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> None:
    """Rank the jobs that ended well, and write their page to a folder of the sweep beside their run folders."""
    folders = [Path(outcome["folder"]).resolve() for outcome in outcomes if outcome["status"] == "ok"]
    if len(folders) < 2:
        return
    # The same sweep, repeated in order to run what was missing, writes to the same folder.
    name = hashlib.sha256(json.dumps(list(arguments)).encode()).hexdigest()[:10]
    try:
        show_runs(folders, Path(os.path.commonpath(folders)) / f"sweep-{name}", "Sweep")
    except (KdzooError, OSError) as error:  # the runs themselves are done and must not seem lost
        print(f"kdzoo: no report of the sweep was written: {error}", file=sys.stderr)


def _print_sweep(outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each job, named by those of its settings that not all jobs have."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Sweep", box=box.SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("job", overflow="fold")
    for name in ("status", "score", "folder"):
        table.add_column(name, no_wrap=name != "folder", overflow="fold")
    for outcome in outcomes:
        score = "" if outcome["score"] is None else f"{outcome['score']:.4f}"
        varied = [setting for setting in outcome["job"] if any(setting not in other["job"] for other in outcomes)]
        table.add_row(escape("\n".join(varied)), outcome["status"], score, os.path.relpath(outcome["folder"]))
    Console(highlight=False).print(table)
