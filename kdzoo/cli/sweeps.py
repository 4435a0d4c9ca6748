"""What a sweep prints: each job when it starts and when it fails, and a table of all jobs at the end."""

import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from kdzoo import config
from kdzoo.cli import sweep_jobs
from kdzoo.cli.sweep_jobs import ENDED_WELL, STATES, Job, Sweep
from kdzoo.config.processes import SWEEP, is_first_process
from kdzoo.config.signatures import describe
from kdzoo.errors import KdzooError, PrunedError, first_line
from kdzoo.storage.run_folder import read_report

# How submitit ends a process whose job it has queued again, as at a time limit: with Slurm, and on this machine.
QUEUED_AGAIN = (-1, 144)
HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"


class JobFailedError(CompactHydraException):
    """One job of a sweep failed, and has said why; Hydra continues with the others."""


class StoppedBySignal(SystemExit):
    """A signal has stopped the job, which can be continued."""


def announce(settings: DictConfig, job: Sequence[str], *, has_teacher: bool = True) -> None:
    """Say what starts now: importing PyTorch, before anything else can be shown, takes seconds."""
    chosen = settings.runtime.choices
    models = f"from {chosen.teacher} to {chosen.student}" if has_teacher else f"training {chosen.student}"
    what = f"{chosen.distiller} on {chosen.data}, {models}"
    if settings.mode == RunMode.MULTIRUN:
        sweep = sweep_jobs.read(Path(os.environ[SWEEP]))
        varied = [override for override in sweep.overrides(settings.job.num, job) if override not in sweep.arguments]
        # A sweeper that chooses the settings of a job from earlier ones does not know their number in advance.
        of_all = f" of {len(sweep.planned)}" if sweep.planned else ""
        what = f"job {settings.job.num + 1}{of_all}: {' '.join(varied) or what}"
    if is_first_process():
        print(f"kdzoo: {what}", file=sys.stderr, flush=True)


def uses_teacher(cfg: DictConfig) -> bool:
    """Return whether the configuration has a teacher that its method uses, as far as it is known without an import."""
    target = str(cfg.distiller.get("_target_")) if cfg.get("distiller") else ""
    is_packaged = target in config.packaged_targets()
    return cfg.get("teacher") is not None and not (is_packaged and describe(target).info.get("teacher") == "none")


@contextmanager
def noted(settings: DictConfig, overrides: Sequence[str], run_folder: Path) -> Iterator[dict[str, Any]]:
    """Note how a job goes if it belongs to a sweep, and let nothing that stops it stop the other jobs.

    Args:
        settings: Hydra's own settings.
        overrides: The settings of the job.
        run_folder: Its run folder.

    Yields:
        A dictionary for the result of the job; see :class:`~kdzoo.cli.sweep_jobs.Job`.

    Raises:
        JobFailedError: The job failed, in whatever way.
    """
    result: dict[str, Any] = {}
    if settings.mode != RunMode.MULTIRUN:
        yield result
        return
    sweep = sweep_jobs.read(Path(os.environ[SWEEP]))
    number, launcher = settings.job.num, settings.runtime.choices.get("hydra/launcher", "basic")
    folder = os.path.relpath(run_folder.resolve(), sweep.folder)
    job = Job(number, sweep.overrides(number, overrides), "running", folder)
    # Of two sweeps that share this job, the second one only shows the result; the first one may end meanwhile.
    if not sweep.is_done(job):
        sweep.note(job)
    try:
        yield result
        sweep.note(replace(job, state="done", result=result))
    except PrunedError:
        sweep.note(replace(job, state="pruned"))
    except (KeyboardInterrupt, StoppedBySignal):
        sweep.note(replace(job, state="interrupted"))
        # The process of the sweep itself was asked to stop; the signal to a worker process is about its job alone.
        if launcher == "basic":
            raise
        raise JobFailedError(f"job {job.number + 1} was interrupted") from None
    except (Exception, SystemExit) as error:  # whatever the code of a user raises
        if launcher.startswith("submitit") and isinstance(error, SystemExit) and error.code in QUEUED_AGAIN:
            sweep.note(replace(job, state="interrupted"))
            raise
        _fail(sweep, job, error)


def _fail(sweep: Sweep, job: Job, error: BaseException) -> NoReturn:
    """Print why a job failed, and note it."""
    name = f"job {job.number + 1} failed"
    if isinstance(error, KdzooError):
        lines = [f"kdzoo: {name}: {line}" for line in str(error).splitlines()]
        reason = first_line(error)
    elif isinstance(error, SystemExit):
        reason = f"its code called sys.exit({'' if error.code is None else repr(error.code)})"
        lines = [f"kdzoo: {name}: {reason}"]
    else:  # a mistake in a program, whose place matters
        reason = f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__
        lines = ["".join(traceback.format_exception(error)).rstrip(), f"kdzoo: {name}: {reason}"]
    print("\n".join(lines), file=sys.stderr, flush=True)
    sweep.note(replace(job, state="failed", error=reason))
    raise JobFailedError(f"{name}: {reason}") from None


@contextmanager
def raised_errors(variables: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let Hydra raise what its jobs have raised, instead of printing the first error and exiting.

    Args:
        variables: Further environment variables that jobs see.
    """
    now = {HYDRA_FULL_ERROR: "1", **(variables or {})}
    before = {name: os.environ.get(name) for name in now}
    os.environ.update(now)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def run(sweep: Sweep, start: Callable[[], None]) -> None:
    """Run a sweep, print how each of its jobs ended, and exit with an error unless all are done.

    Args:
        sweep: The sweep.
        start: Starts Hydra, which runs the jobs.
    """
    handler = signal.signal(signal.SIGTERM, _stop)
    try:
        with raised_errors({SWEEP: str(sweep.folder)}):
            start()
    except JobFailedError:
        pass
    except BrokenExecutor:
        print("kdzoo: the worker processes of the launcher are killed before a job begins", file=sys.stderr)
    except CompactHydraException as error:
        print(f"kdzoo: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGTERM, handler)
        is_done = _show_end(sweep)
    if not is_done:
        sys.exit(1)


def _stop(signum: int, frame: object) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    """Let SIGTERM end the sweep with its table, as an interrupt does."""
    raise StoppedBySignal(128 + signum)


def _show_end(sweep: Sweep) -> bool:
    """Print the table of a sweep that has ended, and write its page; return whether all jobs are done."""
    try:
        jobs = sweep.jobs()
        show(sweep, jobs)
    except (KdzooError, OSError) as error:  # the runs themselves are done and must not seem lost
        print(f"kdzoo: no report of the sweep was written: {error}", file=sys.stderr)
        return False
    missing = sum(job.state not in ENDED_WELL for job in jobs)
    if missing:
        print(f"kdzoo: {missing} of {len(jobs)} jobs are not done; the same command runs only these", file=sys.stderr)
    return not missing


def show(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """Print the table of a sweep; if several jobs are done, print their ranks and write their page to its folder.

    Raises:
        KdzooError: The report of a job cannot be read.
    """
    ordered = ranked(jobs)
    _print_table(sweep, ordered)
    folders = [sweep.run_folder(job) for job in ordered if job.state == "done"]
    if len(folders) > 1:
        show_runs(folders, sweep.folder, "Sweep")
    if folders and not sweep.planned:  # the settings of a search are numbers that nobody wants to copy from a table
        print(f"Best: {(read_report(folders[0] / 'report.json') or {}).get('command', '')}")


def ranked(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs in the order of a table: those that are done by their score, and the failed ones last."""
    from kdzoo.core import metric_catalogue

    # Scores of other data or with another meaning are not compared; such jobs come one group after the other.
    groups = list(dict.fromkeys((job.result.get("data"), job.result.get("metric")) for job in jobs))

    def rank(job: Job) -> tuple[int, int, bool, float, int]:
        score = job.result.get("score")
        value = math.nan if score is None else score
        metric = metric_catalogue.find(job.result.get("metric", ""), job.result.get("kind"))
        sign = 1 if metric is not None and metric.better == "lower" else -1
        group = groups.index((job.result.get("data"), job.result.get("metric")))
        is_nan = math.isnan(value)  # comes last, whatever is better
        return STATES.index(job.state), group, is_nan, 0.0 if is_nan else sign * value, job.number

    return sorted(jobs, key=rank)


def _print_table(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """Print a row for each job, named by those of its settings that not all jobs have."""
    from kdzoo.reports import terminal

    rows, reasons = [], []
    for job in jobs:
        value = job.result.get("score")
        varied = [text for text in job.overrides if any(text not in other.overrides for other in jobs)]
        folder = os.path.relpath(sweep.run_folder(job)) if job.folder else ""
        rows.append((varied, (job.state, "" if value is None else f"{value:.4f}", folder)))
        if job.error:
            reasons.append(f"job {job.number + 1} ({' '.join(varied)}) failed: {job.error}".replace(" ()", ""))
    terminal.show_named("Sweep", "job", {"state": "left", "score": "left", "folder": "left"}, rows)
    for reason in reasons:
        print(reason)


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
