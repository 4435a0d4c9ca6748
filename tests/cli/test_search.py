"""A search runs its trials once, and is continued where it was stopped."""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from kdzoo.cli import search, sweep_jobs, sweeps
from kdzoo.cli.sweep_jobs import Job
from kdzoo.config.search_space import Choices, Interval
from kdzoo.config.sweepers import Direction, Sampler
from kdzoo.errors import ConfigError
from kdzoo.storage.study import open_study

optuna = pytest.importorskip("optuna")
SPACE = ["++x=tag(log,interval(0.1,10))", "++width=range(1,9)", "data=digits,mnist", "seed=0"]


class Killed(BaseException):
    """The process of the search was killed."""


class Trials:
    """A launcher whose jobs compute a score from their settings; it fails or dies as it is told.

    Attributes:
        ran: The settings of the jobs that ran, in this order.
    """

    def __init__(self, sweep, fails=(), dies_after=None, result=None):
        self.sweep, self.fails, self.dies_after = sweep, fails, dies_after
        self.result = result or {"metric": "accuracy", "kind": "classifier", "data": "digits"}
        self.ran = []

    def launch(self, job_overrides, initial_job_idx):
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            if len(self.ran) == self.dies_after:
                raise Killed
            self.ran.append(list(overrides))
            state = "failed" if len(self.ran) - 1 in self.fails else "done"
            settings = dict(text.split("=") for text in overrides)
            score = -abs(float(settings["++x"]) - 2) - 0.01 * int(settings["++width"])
            result = {**self.result, "score": score} if state == "done" else {}
            self.sweep.note(Job(number, overrides, state, result=result))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a search until it ends or is killed, and returns what ran."""

    def run(name="search", n_trials=8, n_jobs=2, sampler="tpe", direction="maximize", **launcher):
        sweep = sweep_jobs.begin(tmp_path / name, SPACE, [])
        monkeypatch.setenv(sweeps.SWEEP, str(sweep.folder))
        sweeper = search.OptunaSweeper(n_trials, n_jobs, Direction[direction], Sampler[sampler], seed=0)
        sweeper.context = SimpleNamespace(config_loader=None)
        sweeper.persistent_launcher = Trials(sweep, **launcher)
        with suppress(Killed):
            sweeper.sweep(SPACE)
        return sweeper.persistent_launcher.ran, sweep

    return run


def all_points(sweep):
    return sorted(str(sorted(job.overrides)) for job in sweep.jobs() if job.state == "done")


def test_the_number_of_trials_is_that_of_the_whole_study(run):
    first, _ = run(n_trials=3)
    assert len(first) == 3
    assert {text for settings in first for text in settings if text.startswith("seed")} == {"seed=0"}
    again, _ = run(n_trials=3)
    assert again == []
    more, sweep = run(n_trials=5)
    assert len(more) == 2
    assert len(set(all_points(sweep))) == 5  # no point is repeated, although the seed is the same


@pytest.mark.parametrize("dies_after", [1, 4, 7])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_killed_ends_with_the_points_of_an_undisturbed_one(sampler, dies_after, run):
    # With more points than TPE's ten random ones, so that earlier scores count.
    whole, undisturbed = run("whole", 14, sampler=sampler)
    killed, _ = run("killed", 14, sampler=sampler, dies_after=dies_after + 5)
    rest, sweep = run("killed", 14, sampler=sampler)
    assert len(killed) + len(rest) == len(whole) == 14
    assert all_points(sweep) == all_points(undisturbed)
    assert {trial.state.name for trial in open_study(sweep.folder).trials} == {"COMPLETE"}


def test_a_failed_trial_stops_no_other_one_and_is_tried_again_by_the_next_search(run):
    ran, sweep = run(n_trials=4, fails=[1, 2])
    assert [job.state for job in sweep.jobs()] == ["done", "failed", "failed", "done"]
    again, sweep = run(n_trials=4, fails=[0])
    assert again == ran[1:3]
    assert [(job.number, job.state) for job in sweep.jobs()] == [(0, "done"), (3, "done"), (4, "failed"), (5, "done")]
    last, sweep = run(n_trials=4)
    assert last == ran[1:2]
    assert [job.state for job in sweep.jobs()] == ["done"] * 4


def test_a_trial_whose_settings_were_not_all_written_is_tried_as_another_one(run, tmp_path):
    _, sweep = run(n_trials=1)
    study = open_study(sweep.folder)
    study.ask({"++x": optuna.distributions.FloatDistribution(0.1, 10, log=True)})
    ran, sweep = run(n_trials=2)
    assert [len(settings) for settings in ran] == [len(SPACE)]
    assert [job.number for job in sweep.jobs()] == [0, 2]


@pytest.mark.parametrize(
    ("state", "result", "expected"),
    [
        ("done", {"score": 0.5}, "COMPLETE"),
        ("done", {"score": float("nan"), "validation": 0.5}, "COMPLETE"),
        ("done", {"score": float("nan")}, "FAIL"),
        ("done", {"score": None}, "FAIL"),
        ("pruned", {}, "PRUNED"),
        ("interrupted", {}, "FAIL"),
        ("not started", {}, "FAIL"),
    ],
)
def test_how_a_job_has_ended_is_told_to_the_study(state, result, expected, tmp_path):
    study = open_study(tmp_path, direction="maximize")
    trial = study.ask()
    search.tell(study, trial.number, Job(trial.number, [], state, result=result))
    assert study.trials[0].state.name == expected


def test_a_search_chooses_by_validation_data_where_there_are_any(tmp_path):
    study = open_study(tmp_path, direction="maximize")
    for result in ({"score": 0.9, "validation": 0.1}, {"score": 0.5, "validation": 0.4}, {"score": 0.3}):
        trial = study.ask()
        search.tell(study, trial.number, Job(trial.number, [], "done", result=result))
    assert [trial.value for trial in study.trials] == [0.1, 0.4, 0.3]
    assert study.best_trial.number == 1


@pytest.mark.parametrize(("kind", "metric", "right"), [("classifier", "accuracy", "maximize"), ("", "kl", "minimize")])
def test_the_direction_is_that_of_the_score(kind, metric, right, run):
    result = {"metric": metric, "kind": kind, "data": "digits"}
    wrong = {"maximize": "minimize", "minimize": "maximize"}[right]
    ran, _ = run("right", 2, direction=right, result=result)
    assert len(ran) == 2
    with pytest.raises(
        ConfigError, match=f"hydra.sweeper.direction={wrong}, but a .* {metric} is better; set .*={right}"
    ):
        run("wrong", 2, direction=wrong, result=result)


def test_a_score_without_a_direction_may_be_searched_in_any():
    for direction in ("maximize", "minimize"):
        search.check_direction(direction, {"metric": "of_a_user"})


def test_the_values_of_settings_become_those_of_optuna():
    distributions = optuna.distributions
    assert search.distribution(Choices(["a", "b"])) == distributions.CategoricalDistribution(["a", "b"])
    assert search.distribution(Interval(1, 7, 3)) == distributions.IntDistribution(1, 7, step=3)
    assert search.distribution(Interval(1, 8, log=True)) == distributions.IntDistribution(1, 8, log=True)
    assert search.distribution(Interval(0.5, 1.5)) == distributions.FloatDistribution(0.5, 1.5)
