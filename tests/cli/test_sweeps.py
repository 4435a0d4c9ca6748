"""A sweep announces each job with its own settings, and ends with a table of all of them."""

import os
from types import SimpleNamespace

import pytest
from hydra.types import RunMode

from kdzoo.cli import sweeps
from tests.reports.example import model
from tests.reports.test_leaderboard import write_run

CHOICES = SimpleNamespace(distiller="dkd", data="digits", teacher="mlp", student="mlp")


def settings(mode=RunMode.MULTIRUN, number=0):
    return SimpleNamespace(mode=mode, job=SimpleNamespace(num=number), runtime=SimpleNamespace(choices=CHOICES))


def test_a_single_run_says_what_starts(capsys):
    sweeps.announce(settings(RunMode.RUN), ["distiller=dkd"])
    assert capsys.readouterr().err == "kdzoo: dkd on digits, from mlp to mlp\n"


@pytest.mark.parametrize(
    ("n_jobs", "job", "line"),
    [
        (4, ["distiller=dkd", "seed=1"], "kdzoo: job 3 of 4: seed=1\n"),
        (1, ["distiller=dkd", "lr=0.1"], "kdzoo: job 3: lr=0.1\n"),  # a sweeper decides how many jobs there are
        (4, ["distiller=dkd"], "kdzoo: job 3 of 4: dkd on digits, from mlp to mlp\n"),
    ],
)
def test_a_job_is_announced_with_its_number_and_its_own_settings(n_jobs, job, line, capsys):
    with sweeps.summary(n_jobs, ["distiller=dkd", "seed=0,1"]):
        sweeps.announce(settings(number=2), job)
    assert capsys.readouterr().err == line


def test_every_job_has_a_row_also_after_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    jobs = [
        {"job": ["a=1", "b=2"], "status": "ok", "score": 0.12345, "folder": str(tmp_path / "x")},
        {"job": ["a=1", "b=[/3]"], "status": "failed", "score": None, "folder": str(tmp_path / "y")},
    ]

    def sweep():
        with sweeps.summary(2, ["a=1", "b=2,[/3]"]):
            for job in jobs:
                sweeps.note(job)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep()
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "b=" in line]
    assert [word in rows[0] for word in ("b=2", "ok", "0.1235", "x")] == [True] * 4
    assert [word in rows[1] for word in ("b=[/3]", "failed", "y")] == [True] * 3
    assert "a=1" not in printed
    assert sweeps.SWEEP not in os.environ


def test_a_run_outside_of_a_sweep_notes_nothing():
    sweeps.note({"job": []})


def finished_job(folder, number):
    write_run(folder / f"run{number}", {"distiller": {"temperature": number}}, student=model(0.5 + number / 10))
    return {"job": [f"t={number}"], "status": "ok", "score": 0.5, "folder": str(folder / f"run{number}")}


def test_a_sweep_ends_with_the_ranks_of_its_jobs_and_a_page(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with sweeps.summary(3, ["t=1,2,3"]):
        for number in (1, 2):
            sweeps.note(finished_job(tmp_path, number))
        sweeps.note({"job": ["t=3"], "status": "failed", "score": None, "folder": str(tmp_path / "run3")})
    (page,) = tmp_path.glob("sweep-*/leaderboard.html")
    printed = capsys.readouterr().out
    assert f"Report: {page.relative_to(tmp_path)}" in printed
    ranks = printed[printed.index("accuracy ↑ on digits") :]
    assert ranks.index("distiller.temperature=2") < ranks.index("distiller.temperature=1")


def test_a_report_that_cannot_be_written_does_not_end_the_sweep(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [finished_job(tmp_path, number) for number in (1, 2)]
    (tmp_path / "run2" / "report.json").write_text("{")
    with sweeps.summary(2, ["t=1,2"]):
        for job in jobs:
            sweeps.note(job)
    captured = capsys.readouterr()
    assert "run2" in captured.out
    assert "no report of the sweep was written" in captured.err


def test_the_ranks_of_a_single_job_are_not_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with sweeps.summary(1, ["t=1"]):
        sweeps.note(finished_job(tmp_path, 1))
    assert "Report" not in capsys.readouterr().out
