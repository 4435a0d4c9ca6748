"""A killed process costs no job but its own, and that one a second attempt."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus

from kdzoo.cli import launching, sweep_jobs, sweeps
from kdzoo.cli.sweep_jobs import Job

PLANNED = [[f"t={t}"] for t in range(8)]


class UncompletedJobError(Exception):
    """An error with the name of submitit's."""


class Pool:
    """A launcher of two workers that run jobs side by side; a deadly job is killed as often as is said.

    Attributes:
        launched: The numbers of the jobs of each launch.
        ran: The numbers of the jobs that began, in this order.
    """

    def __init__(self, sweep, deadly, failing=()):
        self.sweep, self.deadly, self.failing = sweep, dict(deadly), failing
        self.launched, self.ran = [], []

    def launch(self, job_overrides, initial_job_idx):
        numbers = list(range(initial_job_idx, initial_job_idx + len(job_overrides)))
        assert [list(overrides) for overrides in job_overrides] == [PLANNED[number] for number in numbers]
        self.launched.append(numbers)
        for pair in (numbers[i : i + 2] for i in range(0, len(numbers), 2)):
            self.ran += pair
            for number in pair:
                self.sweep.note(Job(number, PLANNED[number], "running", f"../run{number}"))
            killed = [number for number in pair if self.deadly.get(number, 0) > 0]
            for number in killed:
                self.deadly[number] -= 1
            if killed:
                raise BrokenExecutor
            for number in pair:
                state = "failed" if number in self.failing else "done"
                result = {} if number in self.failing else {"score": number / 10}
                self.sweep.note(Job(number, PLANNED[number], state, f"../run{number}", result=result))
        return [JobReturn(status=JobStatus.COMPLETED, _return_value="from the pool") for _ in numbers]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of eight jobs whose processes know it."""
    sweep = sweep_jobs.begin(tmp_path, ["t=range(8)"], PLANNED)
    monkeypatch.setenv(sweeps.SWEEP, str(sweep.folder))
    return sweep


def launch(pool, first=0, last=8):
    return launching.PersistentLauncher(pool).launch(PLANNED[first:last], first)


def states(sweep):
    return [job.state for job in sweep.jobs()]


def test_jobs_that_end_by_themselves_are_launched_once(sweep):
    pool = Pool(sweep, {}, failing=[1])
    assert {job.return_value for job in launch(pool)} == {"from the pool"}
    assert pool.launched == [list(range(8))]


def test_the_jobs_beside_a_killed_one_are_tried_again_after_those_that_had_not_started(sweep, capsys):
    pool = Pool(sweep, {3: 1})
    returned = launch(pool)
    assert pool.launched == [list(range(8)), [4, 5, 6, 7], [2], [3]]
    assert [job.return_value for job in returned] == [number / 10 for number in range(8)]
    assert states(sweep) == ["done"] * 8
    assert "a worker process was killed, which has stopped jobs 3, 4; " in capsys.readouterr().err


def test_a_job_whose_process_is_killed_whenever_it_runs_costs_no_other_one(sweep, capsys):
    pool = Pool(sweep, {3: 9, 5: 9}, failing=[0])
    returned = launch(pool)
    assert states(sweep) == ["failed", "done", "done", "interrupted", "done", "interrupted", "done", "done"]
    assert [pool.ran.count(number) for number in range(8)] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert "the process of job 4 was killed again" in capsys.readouterr().err
    assert [job.return_value for job in returned] == [None, 0.1, 0.2, None, 0.4, None, 0.6, 0.7]


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_failure_that_is_noted_stops_no_further_batch_and_any_other_one_does(is_noted, sweep, capsys):
    error = sweeps.JobFailedError("job 1 failed") if is_noted else KeyError("of the launcher")

    class Basic:
        def launch(self, job_overrides, initial_job_idx):
            return [JobReturn(status=JobStatus.FAILED, _return_value=error)]

    (returned,) = launch(Basic(), last=1)
    if is_noted:
        assert returned.return_value is None
        assert capsys.readouterr().err == ""  # Hydra prints an error of its own when it finds a job that has failed
    else:
        with pytest.raises(KeyError):
            _ = returned.return_value


def test_how_jobs_ended_before_is_not_taken_for_how_they_end_now(sweep):
    for number, state in enumerate(["done", "failed", "interrupted", "failed", "interrupted", "failed"]):
        sweep.note(Job(number, PLANNED[number], state))
    pool = Pool(sweep, {2: 1})
    launch(pool, 2)
    assert pool.launched == [[2, 3, 4, 5, 6, 7], [4, 5, 6, 7], [2], [3]]
    assert states(sweep) == ["done", "failed"] + ["done"] * 6  # the first two are not of this launch


def test_a_pool_that_breaks_before_a_job_begins_is_not_tried_for_ever(sweep):
    class Broken:
        def launch(self, job_overrides, initial_job_idx):
            raise BrokenExecutor("no memory")

    with pytest.raises(BrokenExecutor, match="no memory"):
        launch(Broken())


def test_a_launcher_whose_other_processes_go_on_is_not_started_again(sweep, capsys):
    class Submitit:
        def launch(self, job_overrides, initial_job_idx):
            sweep.note(Job(0, PLANNED[0], "done", result={"score": 0.5}))
            sweep.note(Job(1, PLANNED[1], "running", "../run1"))
            raise UncompletedJobError

    returned = launch(Submitit())
    assert [job.return_value for job in returned] == [0.5] + [None] * 7
    assert states(sweep) == ["done", "interrupted"] + ["not started"] * 6
    assert "waiting for the jobs that are running" in capsys.readouterr().err


def test_a_mistake_in_a_launcher_is_raised(sweep):
    class Wrong:
        def launch(self, job_overrides, initial_job_idx):
            raise KeyError("key")

    with pytest.raises(KeyError):
        launch(Wrong())


def test_a_process_that_a_job_is_sent_to_can_import_the_users_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    task = launching.Task(len)
    assert str(tmp_path) not in sys.path
    sent = pickle.loads(pickle.dumps(task))
    assert sys.path[-1] == str(tmp_path)  # behind everything that is installed
    assert sent("abc") == 3


@pytest.mark.parametrize("first", ["kdzoo.cli.launching", "hydra._internal.core_plugins.basic_sweeper", "os"])
def test_hydra_finds_the_sweepers_of_an_installed_package_whatever_is_imported_first(first):
    """Hydra looks in the folders of the path, where ``hydra_plugins`` is that of an installation."""
    code = f"""
import {first}
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
names = {{sweeper.__name__ for sweeper in Plugins.instance().discover(Sweeper)}}
assert {{"GridSweeper", "OptunaSweeper"}} <= names, names
from kdzoo.cli.launching import GridSweeper
from types import SimpleNamespace
from unittest.mock import patch
with patch.object(Plugins, "instantiate_launcher"):
    sweeper = GridSweeper()
    sweeper.setup(hydra_context=SimpleNamespace(config_loader=None), task_function=None, config=None)
print(type(sweeper.basic_sweeper.launcher).__name__)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(launching.__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert (answer.stdout, answer.stderr) == ("PersistentLauncher\n", "")
