"""The search space of a sweep comes from overrides and from YAML, and mistakes in it are found before it starts."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kdzoo.config import overrides, search_space
from kdzoo.config.search_space import Choices, Interval

SEARCH = ["-m", "hydra/sweeper=optuna"]
# Optuna need not be installed for a command line to be checked.
pytestmark = pytest.mark.usefixtures("optuna_is_installed")


@pytest.fixture
def optuna_is_installed(monkeypatch):
    monkeypatch.setattr(search_space, "find_spec", lambda name: True)


def check(*arguments):
    return overrides.check(overrides.parse(arguments))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,4,a", Choices(["1", "4", "a"])),
        ("choice(true,[1,2])", Choices(["True", "[1,2]"])),
        ("interval(1,4)", Interval(1.0, 4.0)),
        ("tag(log,interval(1e-4,1))", Interval(1e-4, 1.0, log=True)),
        ("int(interval(1,4))", Interval(1, 4)),
        ("range(1,10,3)", Interval(1, 7, step=3)),
        ("range(0.5,1.6,0.5)", Interval(0.5, 1.5, step=0.5)),
        ("tag(log,range(1,9))", Interval(1, 8, log=True)),
        ("range(3,0,-1)", Choices(["3", "2", "1"])),
        ("range(0,1)", Choices(["0"])),
        ("shuffle(range(0,3))", Choices(["0", "1", "2"])),
    ],
)
def test_the_values_of_a_setting(text, expected):
    found = search_space.dimension(OverridesParser.create().parse_override(f"key={text}"))
    assert type(found) is type(expected)
    if isinstance(expected, Choices):
        assert sorted(found.values) == sorted(expected.values)
    else:
        assert found == expected
        assert type(found.low) is type(expected.low)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-m", "distiller.temperature=interval(1,2)"], "has no list of values; choose them from it with hydra/sweep"),
        (SEARCH, "hydra/sweeper=optuna has nothing to choose"),
        ([*SEARCH, "seed=0,1", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0"),
        ([*SEARCH, "seed=0,1", "hydra.sweeper.n_jobs=-1"], "hydra.sweeper.n_jobs must be at least 1, got -1"),
        ([*SEARCH, "distiller.temperature=interval(2,1)"], "the first end of an interval must be smaller"),
        ([*SEARCH, "distiller.temperature=tag(log,interval(0,1))"], "must begin above 0, not at 0"),
        ([*SEARCH, "distiller.temperature=tag(lg,interval(1,2))"], "the tag 'lg' has no meaning here"),
        ([*SEARCH, "distiller.temperature=tag(log,choice(1,2))"], "is for intervals and ranges, not for choices"),
        ([*SEARCH, "distiller.temprature=interval(1,2)"], "did you mean 'temperature'"),
        ([*SEARCH, "seed=0,1", "hydra.sweeper.n_trails=3"], "n_trails"),
        ([*SEARCH, "seed=0,1", "hydra.sweeper.direction=up"], "maximize, minimize"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_in_a_search_space_are_lines(arguments, line):
    assert line in "\n".join(check(*arguments).mistakes)


def test_a_search_without_mistakes_has_no_jobs_that_are_known_beforehand():
    result = check(*SEARCH, "distiller.temperature=tag(log,interval(1,20))", "student.hidden=[8],[16]")
    assert (result.mistakes, result.planned) == ([], [])


def test_optuna_must_be_installed(monkeypatch):
    monkeypatch.setattr(search_space, "find_spec", lambda name: None)
    assert "pip install 'kdzoo[optuna]'" in "\n".join(check(*SEARCH, "seed=0,1").mistakes)


# ---------------------------------------------------------------- search spaces in YAML


@pytest.fixture
def experiment(tmp_path):
    """Return a function that writes an experiment with a search space, and returns the arguments that choose it."""

    def write(params, sweeper="optuna", mode="RUN"):
        folder = tmp_path / "experiment"
        folder.mkdir()
        text = f"# @package _global_\ndefaults:\n  - override /hydra/sweeper: {sweeper}\n"
        text += f"hydra:\n  mode: {mode}\n  sweeper:\n    params:\n"
        (folder / "search.yaml").write_text(text + "".join(f"      {line}\n" for line in params))
        return ["--config-dir", str(tmp_path), "experiment=search"]

    return write


def test_a_search_space_in_an_experiment_is_checked_like_one_on_the_command_line(experiment):
    chosen = experiment(["distiller.temprature: interval(1,2)", "student.hidden: choice([8],[-1])"])
    mistakes = "\n".join(check("-m", *chosen).mistakes)
    assert "did you mean 'temperature'" in mistakes
    assert len(mistakes.splitlines()) == 1


def test_an_experiment_with_a_search_space_needs_the_flag_of_a_sweep(experiment):
    chosen = experiment(["distiller.temperature: interval(1,2)"])
    assert "hydra.sweeper.params: distiller.temperature=interval(1,2)); add -m" in "\n".join(check(*chosen).mistakes)
    assert check("--cfg", "job", *chosen).mistakes == []


def test_an_experiment_may_be_a_sweep_by_itself(experiment):
    result = check(*experiment(["distiller.temperature: 1,2"], sweeper="grid", mode="MULTIRUN"))
    assert result.mistakes == []
    assert [job[-1] for job in result.planned] == ["distiller.temperature=1", "distiller.temperature=2"]


def test_the_command_line_comes_before_the_experiment(experiment):
    chosen = experiment(["distiller.temperature: interval(1,2)", "student.width_typo: 3", "seed: 0,1"])
    result = check("-m", *chosen, "distiller.temperature=4", "student.width_typo=null")
    assert result.params == ["seed=0,1"]
    assert "distiller.temperature=4" in result.overrides
    assert "interval" not in " ".join(result.overrides)


def test_all_combinations_of_values_in_an_experiment_are_planned(experiment):
    chosen = experiment(["distiller.temperature: 1,2", "seed: 0"], sweeper="grid")
    result = check("-m", *chosen)
    assert result.mistakes == []
    assert [job[-2:] for job in result.planned] == [
        ["distiller.temperature=1", "seed=0"],
        ["distiller.temperature=2", "seed=0"],
    ]
