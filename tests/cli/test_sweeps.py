"""A sweep announces each job, goes on after any failure, and ends with a table of all jobs and their states."""

import os
import signal
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode

import kdzoo
from kdzoo.cli import sweep_jobs, sweeps
from kdzoo.cli.sweep_jobs import Job
from kdzoo.errors import ConfigError, PrunedError
from kdzoo.storage.run_folder import read_report
from tests.reports.example import model
from tests.reports.test_leaderboard import write_run


def settings(mode=RunMode.MULTIRUN, number=0, launcher="basic"):
    choices = {"distiller": "dkd", "data": "digits", "teacher": "mlp", "student": "mlp", "hydra/launcher": launcher}

    class Choices(dict):
        __getattr__ = dict.__getitem__

    return SimpleNamespace(
        mode=mode, job=SimpleNamespace(num=number), runtime=SimpleNamespace(choices=Choices(choices))
    )


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of three jobs whose processes know it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    sweep = sweep_jobs.begin(tmp_path, ["a=1", "t=1,2,3"], [["a=1", f"t={t}"] for t in (1, 2, 3)])
    monkeypatch.setenv(sweeps.SWEEP, str(sweep.folder))
    return sweep


# ---------------------------------------------------------------- one job


def test_a_single_run_says_what_starts(capsys):
    sweeps.announce(settings(RunMode.RUN), ["distiller=dkd"])
    assert capsys.readouterr().err == "kdzoo: dkd on digits, from mlp to mlp\n"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["distiller=logit_kd"], True),
        (["distiller=elbo", "teacher=vae"], False),
        (["distiller=supervised"], False),
        (["distiller=adversarial", "teacher=null"], False),
    ],
)
def test_whether_a_method_uses_its_teacher_is_known_before_anything_is_imported(overrides, expected):
    assert sweeps.uses_teacher(kdzoo.compose(*overrides)) == expected


def test_a_method_without_a_teacher_names_none(capsys):
    run = settings(RunMode.RUN)
    run.runtime.choices.pop("teacher")  # Hydra lists no group whose choice is null
    sweeps.announce(run, [], has_teacher=False)
    assert capsys.readouterr().err == "kdzoo: dkd on digits, training mlp\n"


@pytest.mark.parametrize(
    ("planned", "job", "line"),
    [
        ([["distiller=dkd", f"seed={i}"] for i in range(4)], "seed=2", "kdzoo: job 3 of 4: seed=2\n"),
        ([], "lr=0.1", "kdzoo: job 3: lr=0.1\n"),  # a sweeper decides how many jobs there are
        ([["distiller=dkd"]] * 4, "", "kdzoo: job 3 of 4: dkd on digits, from mlp to mlp\n"),
    ],
)
def test_a_job_is_announced_with_its_number_and_its_own_settings(planned, job, line, sweep, monkeypatch, capsys):
    begun = sweep_jobs.begin(sweep.folder, ["distiller=dkd", "seed=0,1"], planned)
    monkeypatch.setenv(sweeps.SWEEP, str(begun.folder))
    sweeps.announce(settings(number=2), ["distiller=dkd", job])
    assert capsys.readouterr().err == line


def test_a_run_outside_of_a_sweep_notes_nothing_and_its_errors_pass(tmp_path):
    with pytest.raises(SystemExit), sweeps.noted(settings(RunMode.RUN), [], tmp_path):
        raise SystemExit(3)


def test_a_job_is_noted_when_it_starts_and_when_it_is_done(sweep, tmp_path):
    with sweeps.noted(settings(number=1), ["a=1", "t=2"], tmp_path / "run") as result:
        assert sweep.jobs()[1].folder == "../run"
        result["score"] = 0.5
    assert sweep.jobs()[1] == Job(1, ["a=1", "t=2"], "done", "../run", result={"score": 0.5})


def test_a_job_that_another_sweep_has_done_stays_done_while_its_result_is_shown(sweep, tmp_path):
    finished(sweep, 1)
    with sweeps.noted(settings(number=1), [], tmp_path / "run1"):
        assert sweep.jobs()[1].state == "done"


@pytest.mark.parametrize(
    ("error", "reason", "has_traceback"),
    [
        (ConfigError("a is wrong\nb is wrong"), "a is wrong", False),
        (SystemExit(3), "its code called sys.exit(3)", False),
        (SystemExit(), "its code called sys.exit()", False),
        (RuntimeError("broken\ncode"), "RuntimeError: broken", True),
        (AssertionError(), "AssertionError", True),
        (MemoryError("no memory"), "MemoryError: no memory", True),
    ],
    ids=repr,
)
def test_whatever_ends_a_job_is_printed_and_becomes_the_error_that_lets_the_others_go_on(
    error, reason, has_traceback, sweep, tmp_path, capsys
):
    with pytest.raises(sweeps.JobFailedError, match="job 3 failed"), sweeps.noted(settings(number=2), [], tmp_path):
        raise error
    job = sweep.jobs()[2]
    assert (job.state, job.error) == ("failed", reason)
    printed = capsys.readouterr().err
    assert f"kdzoo: job 3 failed: {reason}\n" in printed
    assert ("test_sweeps.py" in printed) == has_traceback


def test_a_run_that_a_search_has_stopped_is_not_a_failure(sweep, tmp_path, capsys):
    with sweeps.noted(settings(number=2), [], tmp_path):
        raise PrunedError("pruned after epoch 0")
    assert sweep.jobs()[2].state == "pruned"
    sweeps.run(sweep, lambda: [finished(sweep, number) for number in range(2)])
    assert "not done" not in capsys.readouterr().err


def test_a_search_prints_the_command_of_its_best_run(sweep, capsys, tmp_path):
    for number in range(3):
        finished(sweep, number)
    search = replace(sweep, planned=[])
    command = read_report(tmp_path / "run2" / "report.json")["command"]
    sweeps.show(search, search.jobs())
    assert f"Best: {command}\n" in capsys.readouterr().out
    sweeps.show(sweep, sweep.jobs())  # all combinations of a few values are in the table
    assert "Best:" not in capsys.readouterr().out


@pytest.mark.parametrize(("launcher", "raised"), [("basic", sweeps.StoppedBySignal), ("joblib", sweeps.JobFailedError)])
def test_a_signal_ends_the_sweep_but_to_a_worker_process_only_its_job(launcher, raised, sweep, tmp_path):
    with pytest.raises(raised), sweeps.noted(settings(launcher=launcher), [], tmp_path):
        raise sweeps.StoppedBySignal(143)
    assert sweep.jobs()[0].state == "interrupted"


@pytest.mark.parametrize(
    ("launcher", "code", "raised", "state"),
    [
        ("submitit_slurm", -1, SystemExit, "interrupted"),
        ("submitit_local", 144, SystemExit, "interrupted"),
        ("submitit_slurm", 3, sweeps.JobFailedError, "failed"),
        ("joblib", -1, sweeps.JobFailedError, "failed"),
    ],
)
def test_submitit_may_end_a_process_whose_job_it_has_queued_again(launcher, code, raised, state, sweep, tmp_path):
    with pytest.raises(raised), sweeps.noted(settings(launcher=launcher), [], tmp_path):
        raise SystemExit(code)
    assert sweep.jobs()[0].state == state


# ---------------------------------------------------------------- all jobs


def finished(sweep, number):
    """Note a job that is done, with a run folder."""
    folder = sweep.folder.parent / f"run{number}"
    write_run(folder, {"distiller": {"temperature": number}}, student=model(0.5 + number / 10))
    result = {"score": 0.5 + number / 10, "metric": "accuracy", "kind": "classifier", "data": "digits"}
    sweep.note(Job(number, sweep.planned[number], "done", f"../run{number}", result=result))


def test_a_sweep_ends_with_all_its_jobs_the_ranks_of_those_that_are_done_and_a_page(sweep, capsys):
    def start():
        assert os.environ[sweeps.SWEEP] == str(sweep.folder)
        finished(sweep, 0)
        finished(sweep, 1)
        sweep.note(Job(2, sweep.planned[2], "failed", "../[/x]", "no [/memory]"))
        raise sweeps.JobFailedError("job 3 failed")

    with pytest.raises(SystemExit) as stop:
        sweeps.run(sweep, start)
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    rows = [line.split()[1:] for line in out.splitlines() if line.split()[1:2] and line.split()[1].startswith("t=")]
    assert rows[:3] == [["t=2", "done", "0.6000", "run1"], ["t=1", "done", "0.5000", "run0"], ["t=3", "failed", "[/x]"]]
    assert "job 3 (t=3) failed: no [/memory]" in out
    assert "a=1" not in out
    assert err == "kdzoo: 1 of 3 jobs are not done; the same command runs only these\n"
    page = sweep.folder / "leaderboard.html"
    assert page.exists()
    assert f"Report: {page.relative_to(sweep.folder.parent)}" in out


def test_a_sweep_whose_jobs_are_all_done_ends_well_and_leaves_no_traces(sweep, capsys, monkeypatch):
    monkeypatch.delenv(sweeps.SWEEP)
    handler = signal.getsignal(signal.SIGTERM)
    sweeps.run(sweep, lambda: [finished(sweep, number) for number in range(3)])
    assert "not done" not in capsys.readouterr().err
    assert not {sweeps.SWEEP, "HYDRA_FULL_ERROR"} & set(os.environ)
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(
    ("error", "raised", "line"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (BrokenExecutor("many\nlines"), SystemExit, "kdzoo: the worker processes of the launcher are killed"),
        (ConfigCompositionException("no such key"), SystemExit, "kdzoo: no such key"),
        (RuntimeError("a mistake in a launcher"), RuntimeError, ""),
    ],
    ids=repr,
)
def test_the_table_comes_after_every_error(error, raised, line, sweep, capsys):
    def start():
        sweep.note(Job(0, sweep.planned[0], "running", "../run0"))
        raise error

    with pytest.raises(raised):
        sweeps.run(sweep, start)
    out, err = capsys.readouterr()
    assert (out.count("interrupted"), out.count("not started")) == (1, 2)
    assert line in err
    assert "kdzoo: 3 of 3 jobs are not done" in err


def test_sigterm_ends_a_sweep_with_its_table(sweep, capsys):
    with pytest.raises(SystemExit) as stop:
        sweeps.run(sweep, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert stop.value.code == 143
    assert capsys.readouterr().out.count("not started") == 3


def test_a_report_that_cannot_be_read_does_not_hide_the_table(sweep, capsys):
    for number in range(3):
        finished(sweep, number)
    (sweep.folder.parent / "run2" / "report.json").write_text("{")
    with pytest.raises(SystemExit):
        sweeps.run(sweep, lambda: None)
    out, err = capsys.readouterr()
    assert "run2" in out
    assert "no report of the sweep was written" in err


def test_the_ranks_of_a_single_job_are_not_printed(sweep, capsys):
    finished(sweep, 1)
    sweeps.show(sweep, sweep.jobs())
    assert "Report" not in capsys.readouterr().out


def test_jobs_are_ranked_within_their_data_in_the_direction_of_the_score():
    def done(number, score, metric="accuracy", data="digits"):
        return Job(number, [], "done", result={"score": score, "metric": metric, "kind": "classifier", "data": data})

    jobs = [
        Job(0, [], "failed"),
        Job(1, []),
        done(2, 0.5),
        done(3, 2.0, "cross_entropy"),
        done(4, float("nan")),
        done(5, None),
        done(6, 1.0, "cross_entropy"),
        done(7, 0.7),
        Job(8, [], "interrupted"),
        done(9, 0.9, data="mnist"),
    ]
    assert [job.number for job in sweeps.ranked(jobs)] == [7, 2, 4, 5, 6, 3, 9, 1, 8, 0]
