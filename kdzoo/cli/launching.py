"""Launching the jobs of a sweep, whatever becomes of the processes of Hydra's launcher."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, cast

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

from kdzoo.cli import sweep_jobs, sweeps, working_folder
from kdzoo.cli.sweep_jobs import Job, Sweep

# What submitit and Ray raise if the process of a job was killed; the other processes go on. By name, since they need
# not be installed.
LOST_JOB = ("UncompletedJobError", "WorkerCrashedError")
# How long to wait for the processes of a pool that were stopped with another one, in seconds.
PATIENCE = 5.0


class GridSweeper(Sweeper):
    """Hydra's own sweeper, all combinations of values, with a launcher that no killed process stops."""

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        # The parameters are among the arguments already: kdzoo checks them like those of the command line.
        del params
        self.max_batch_size = max_batch_size

    def setup(self, **context: Any) -> None:
        """Prepare the sweep; see ``hydra.plugins.sweeper.Sweeper``."""
        # Hydra runs the modules of its plug-ins again when it looks for them, after which a class of before fails. A
        # sweep begins after that.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        self.basic_sweeper = BasicSweeper(self.max_batch_size)
        self.basic_sweeper.setup(**{**context, "task_function": Task(context["task_function"])})
        self.basic_sweeper.launcher = PersistentLauncher(cast(Launcher, self.basic_sweeper.launcher))

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs; return what Hydra's sweeper returns."""
        return self.basic_sweeper.sweep(arguments)


class Task:
    """The function of a job, in whose process the user's modules can be imported as soon as it has arrived there.

    Hydra names the folder of a job before it calls the function, and the name depends on the user's classes.

    Args:
        function: What Hydra calls with the configuration of a job.
    """

    def __init__(self, function: Callable[[DictConfig], Any]) -> None:
        self.function = function

    def __call__(self, cfg: DictConfig) -> Any:
        """Run the job."""
        return self.function(cfg)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become what was sent to this process."""
        self.__dict__.update(state)
        working_folder.make_importable()


class PersistentLauncher(Launcher):
    """Launch jobs with a launcher of Hydra, and those again that a killed process has taken with it.

    If one process of a pool is killed, as of joblib's, the pool ends, and all jobs that were running are lost. Which of
    them was the cause is unknown. The jobs that had not started go to a new pool. Those that were running follow
    when it has ended, one at a time: if a process is then killed again, no other job is lost.

    Args:
        launcher: The launcher of Hydra after its ``setup``.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def setup(self, **context: Any) -> None:
        """Do nothing: the launcher has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs to their end.

        Args:
            job_overrides: The overrides of each job.
            initial_job_idx: The number of the first job; the others follow.

        Returns:
            What each job has returned; of one that did not end well, None. Hydra would print the error of the first
            such job, which the job has printed itself, and give no further batch to the launcher.

        Raises:
            BrokenExecutor: The processes of the launcher are killed before any job has begun.
        """
        sweep = sweep_jobs.read(Path(os.environ[sweeps.SWEEP]))
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        # How these jobs ended in an earlier sweep must not be taken for how they end in this one.
        sweep.forget([job for job in sweep.jobs() if job.number in numbers and job.state in ("interrupted", "failed")])
        try:
            return [_unless_failed(job) for job in self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)]
        except BrokenExecutor as error:
            self._launch_lost(sweep, dict(zip(numbers, job_overrides, strict=True)), error)
        except Exception as error:
            if type(error).__name__ not in LOST_JOB:
                raise
            print("kdzoo: the process of a job was killed; waiting for the jobs that are running", file=sys.stderr)
            _wait_for(sweep, numbers)
        jobs = {job.number: job for job in sweep.jobs()}
        return [_returned(jobs.get(number, Job(number, []))) for number in numbers]

    def _launch_lost(self, sweep: Sweep, overrides: dict[int, Sequence[str]], error: BrokenExecutor) -> None:
        """Launch the jobs that had not started when a pool broke, and then those that were running, one at a time."""
        left: Collection[int] = overrides.keys()
        suspects: list[int] = []
        is_broken = True
        while is_broken:
            _wait_for(sweep, left, PATIENCE)
            states = {job.number: job.state for job in sweep.jobs()}
            lost = [number for number in left if states.get(number) == "interrupted"]
            if not lost:  # a new pool would break in the same way
                raise error
            left = [number for number in left if states.get(number, "not started") in ("not started", "running")]
            suspects += lost
            names = f"{'jobs' if lost[1:] else 'job'} {', '.join(str(number + 1) for number in lost)}"
            print(
                f"kdzoo: a worker process was killed, which has stopped {names}; "
                "what was running is tried once more when the other jobs have ended",
                file=sys.stderr,
            )
            is_broken = self._breaks(left, overrides)
        for number in suspects:
            if self._breaks([number], overrides):
                _wait_for(sweep, [number], PATIENCE)
                print(f"kdzoo: the process of job {number + 1} was killed again", file=sys.stderr)

    def _breaks(self, numbers: Sequence[int], overrides: dict[int, Sequence[str]]) -> bool:
        """Launch jobs with their numbers; return whether the pool has broken."""
        try:
            for run in consecutive(numbers):
                self.launcher.launch([overrides[number] for number in run], initial_job_idx=run[0])
        except BrokenExecutor:
            return True
        return False


def consecutive(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield the runs of consecutive numbers, since a launcher numbers its jobs from a first one on."""
    # Within such a run, number and place in the sequence have the same difference.
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _wait_for(sweep: Sweep, numbers: Collection[int], seconds: float = float("inf")) -> None:
    """Wait until no process is at one of these jobs, for some seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(job.number in numbers and job.state == "running" for job in sweep.jobs()):
        time.sleep(0.1)


def _unless_failed(returned: JobReturn) -> JobReturn:
    """Return what a job has returned, and of one that has failed, and is noted as such, None."""
    if isinstance(returned._return_value, sweeps.JobFailedError):
        return JobReturn(returned.overrides, status=JobStatus.COMPLETED)
    return returned


def _returned(job: Job) -> JobReturn:
    """Return what Hydra expects of a job, from what is noted about it."""
    return JobReturn(job.overrides, status=JobStatus.COMPLETED, _return_value=job.result.get("score"))
