"""The jobs of a sweep and what has become of them, in the folder of the sweep.

``sweep.json`` says which jobs there are. Each job has a file of its own in ``jobs``, so that the processes of a
parallel sweep never write to the same file, and a process that is killed leaves complete files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdzoo.errors import ConfigError, RunFolderError
from kdzoo.storage import checked_json, run_folder

SWEEP_FILE = "sweep.json"
# From the best to the worst, the order of the table; a job whose process has ended without a word is interrupted.
STATES = ("done", "pruned", "running", "not started", "interrupted", "failed")
# Settings with which a repeated sweep is still the same one.
MAY_CHANGE = ("hydra/launcher=", "hydra.launcher.", "hydra.sweeper.n_trials=", "hydra.sweeper.n_jobs=")
ENDED_WELL = ("done", "pruned")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: Its settings as they are typed.
        state: One of ``STATES``.
        folder: Its run folder, relative to the folder of the sweep; empty if it was never started.
        error: Why it failed, in one line.
        result: Of a job that is done: its ``score`` on the test split and that on the ``validation`` split, and the
            names of ``metric``, ``kind`` and ``data``.
    """

    number: int
    overrides: Sequence[str]
    state: str = "not started"
    folder: str = ""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what may come from a file."""
        scores = [self.result.get(name) for name in ("score", "validation")]
        names = [self.result.get(name, "") for name in ("metric", "kind", "data")]
        texts = (*self.overrides, self.folder, self.error, *names)
        is_number = all(isinstance(score, float | int | None) for score in scores)
        is_valid = type(self.number) is int and self.state in STATES and is_number
        if not (is_valid and all(isinstance(text, str) for text in texts)):
            raise ValueError


def searched_score(result: Mapping[str, Any]) -> float | None:
    """Return the score by which a search chooses: on the validation split, or on the test split without one."""
    validation: float | None = result.get("validation")
    return result.get("score") if validation is None else validation


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        folder: Its folder.
        arguments: What was typed.
        planned: The settings of each job; empty if a sweeper chooses them during the sweep.
    """

    folder: Path
    arguments: Sequence[str]
    planned: Sequence[Sequence[str]]

    def overrides(self, number: int, of_hydra: Sequence[str]) -> Sequence[str]:
        """Return the settings of a job as they were typed; those of Hydra, which writes ``False``, if they were not."""
        return self.planned[number] if number < len(self.planned) else list(of_hydra)

    def note(self, job: Job) -> None:
        """Write down the state of a job."""
        checked_json.write(self.folder / "jobs" / f"{job.number}.json", asdict(job))

    def forget(self, jobs: Iterable[Job]) -> None:
        """Delete what is noted about some jobs, which makes them jobs that are not started."""
        for job in jobs:
            (self.folder / "jobs" / f"{job.number}.json").unlink(missing_ok=True)

    def is_done(self, job: Job) -> bool:
        """Return whether a job was noted as done before, and its report is still there."""
        has_report = (self.run_folder(job) / "report.json").exists()
        return has_report and any(known.number == job.number and known.state == "done" for known in self.jobs())

    def jobs(self) -> list[Job]:
        """Return all jobs in the order of the sweep.

        Raises:
            RunFolderError: The file of a job is damaged.
        """
        jobs = {number: Job(number, overrides) for number, overrides in enumerate(self.planned)}
        for path in (self.folder / "jobs").glob("*.json"):
            content = checked_json.read(path, remedy="delete it; the sweep then runs or shows this job again")
            try:
                job = Job(**content)
            except (TypeError, ValueError, AttributeError):
                raise RunFolderError(f"{path} does not describe a job of a sweep; delete it") from None
            # The process of a running job holds the lock of its run folder.
            if job.state == "running" and not run_folder.is_locked(self.run_folder(job)):
                job = Job(job.number, job.overrides, "interrupted", job.folder)
            jobs[job.number] = job
        return [jobs[number] for number in sorted(jobs)]

    def run_folder(self, job: Job) -> Path:
        """Return the run folder of a job."""
        return Path(os.path.normpath(self.folder / job.folder))


def begin(
    parent: Path, arguments: Sequence[str], planned: Sequence[Sequence[str]], *, is_numbered: bool = True
) -> Sweep:
    """Make the folder of a sweep, or continue with the one that the same sweep has had before.

    Args:
        parent: The folder of the run folders.
        arguments: What was typed.
        planned: The settings of each job; empty if a sweeper chooses them during the sweep.
        is_numbered: Whether jobs have the numbers that they had when the sweep ran before.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    # How many jobs there are, and how many at a time, may change when the sweep is repeated.
    lasting = [text for text in arguments if not text.startswith(MAY_CHANGE)]
    name = hashlib.sha256(json.dumps(lasting).encode()).hexdigest()[:10]
    sweep = Sweep((parent / f"sweep-{name}").resolve(), list(arguments), [list(overrides) for overrides in planned])
    if not is_numbered:
        shutil.rmtree(sweep.folder / "jobs", ignore_errors=True)
    checked_json.write(sweep.folder / SWEEP_FILE, {"arguments": sweep.arguments, "planned": sweep.planned})
    return sweep


def read(folder: Path) -> Sweep:
    """Return the sweep of a folder.

    Raises:
        ConfigError: It is not the folder of a sweep.
        RunFolderError: The file of the sweep is damaged.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is not the folder of a sweep, such as outputs/sweep-0123456789")
    content = checked_json.read(path, remedy="repeat the sweep to write it again")
    arguments: Any = content.get("arguments")
    planned: Any = content.get("planned")
    if not (isinstance(planned, list) and all(map(_is_texts, [arguments, *planned]))):
        raise RunFolderError(f"{path} does not describe a sweep; repeat the sweep to write it again")
    return Sweep(folder.resolve(), arguments, planned)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
