"""The folder of a sweep knows all jobs, also those of a process that was killed, and distrusts its files."""

import fcntl
import os

import pytest

from kdzoo.cli import sweep_jobs
from kdzoo.cli.sweep_jobs import Job
from kdzoo.errors import ConfigError, RunFolderError
from kdzoo.storage import checked_json

PLANNED = [["t=1"], ["t=2"], ["t=3"]]


def test_all_jobs_are_known_from_the_folder_alone(tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1,2,3"], PLANNED)
    done = Job(1, ["t=2"], "done", "../run", result={"score": 0.5, "metric": "accuracy"})
    sweep.note(done)
    found = sweep_jobs.read(sweep.folder)
    assert found == sweep
    assert found.jobs() == [Job(0, ["t=1"]), done, Job(2, ["t=3"])]
    assert found.run_folder(done) == tmp_path / "run"


def test_a_sweep_that_is_repeated_keeps_its_folder_with_any_number_of_processes(tmp_path):
    first = sweep_jobs.begin(tmp_path, ["t=1,2,3"], PLANNED)
    first.note(Job(0, ["t=1"], "failed", "../run", "no memory"))
    line = ["t=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert sweep_jobs.begin(tmp_path, line, PLANNED).jobs() == first.jobs()
    assert sweep_jobs.begin(tmp_path, ["t=1,2,4"], PLANNED).folder != first.folder


def test_a_job_that_is_forgotten_is_not_started(tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1,2,3"], PLANNED)
    failed = [Job(number, PLANNED[number], "failed") for number in range(3)]
    for job in failed:
        sweep.note(job)
    sweep.forget(failed[:2])
    assert [job.state for job in sweep.jobs()] == ["not started", "not started", "failed"]
    sweep.forget(failed[:1])  # nothing is noted any more


def test_jobs_that_a_sweeper_chooses_are_not_those_of_the_time_before(tmp_path):
    job = Job(0, ["t=1.5"], "done")
    sweep_jobs.begin(tmp_path, ["t=interval(1,2)"], []).note(job)
    more = ["t=interval(1,2)", "hydra.sweeper.n_trials=9"]
    assert sweep_jobs.begin(tmp_path, more, []).jobs() == [job]  # of a search that is continued
    assert sweep_jobs.begin(tmp_path, ["t=interval(1,2)"], [], is_numbered=False).jobs() == []


def test_a_job_runs_as_long_as_its_run_folder_is_locked(tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1"], [["t=1"]])
    (tmp_path / "run").mkdir()
    sweep.note(Job(0, ["t=1"], "running", "../run"))
    with (tmp_path / "run" / ".lock").open("a") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        assert [job.state for job in sweep.jobs()] == ["running"]
    assert [job.state for job in sweep.jobs()] == ["interrupted"]  # its process was killed: nothing else was noted


def test_another_folder_is_not_that_of_a_sweep(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a sweep"):
        sweep_jobs.read(tmp_path)


@pytest.mark.parametrize(
    "content", [{}, {"arguments": "t=1", "planned": []}, {"arguments": [], "planned": [1]}, {"planned": 3}], ids=str
)
def test_a_file_that_describes_no_sweep_is_named(content, tmp_path):
    checked_json.write(tmp_path / "sweep.json", content)
    with pytest.raises(RunFolderError, match=r"sweep\.json does not describe a sweep"):
        sweep_jobs.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"number": 0},
        {"number": "0", "overrides": []},
        {"number": 0, "overrides": [1]},
        {"number": 0, "overrides": None},
        {"number": 0, "overrides": [], "state": "unknown"},
        {"number": 0, "overrides": [], "folder": 5},
        {"number": 0, "overrides": [], "other": ""},
        {"number": 0, "overrides": [], "result": {"score": "high"}},
        {"number": 0, "overrides": [], "result": {"metric": 1}},
        {"number": 0, "overrides": [], "result": "high"},
    ],
    ids=str,
)
def test_a_file_that_describes_no_job_is_named(content, tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1"], [["t=1"]])
    checked_json.write(sweep.folder / "jobs" / "0.json", content)
    with pytest.raises(RunFolderError, match=r"0\.json does not describe a job"):
        sweep.jobs()


def test_a_damaged_file_of_a_job_is_named(tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1"], [["t=1"]])
    os.makedirs(sweep.folder / "jobs")
    (sweep.folder / "jobs" / "0.json").write_text('{"number": 0')
    with pytest.raises(RunFolderError, match="delete it"):
        sweep.jobs()


def test_a_job_is_done_as_long_as_its_report_is_there(tmp_path):
    sweep = sweep_jobs.begin(tmp_path, ["t=1,2,3"], PLANNED)
    job = Job(1, ["t=2"], "done", "../run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("{}")
    assert not sweep.is_done(job)
    sweep.note(job)
    assert sweep.is_done(job)
    (tmp_path / "run" / "report.json").unlink()
    assert not sweep.is_done(job)
