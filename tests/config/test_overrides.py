"""Parsing of command lines: flags, overrides, sweeps and the names that may be built."""

from pathlib import Path

import pytest

from kdzoo import config
from kdzoo.config import overrides


def test_arguments_are_sorted_into_flags_and_overrides(tmp_path):
    line = overrides.parse(["list", "--config-dir", str(tmp_path), "seed=0", "--cfg", "job", "-p=hydra"])
    assert line.flags == ["--config-dir", str(tmp_path.resolve()), "--cfg", "job", "-p", "hydra"]
    assert line.overrides == ["list", "seed=0"]
    assert line.folder == tmp_path.resolve()
    assert line.mistakes == []


def test_a_relative_config_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert overrides.parse(["--config-dir=conf"]).folder == Path(tmp_path / "conf").resolve()


@pytest.mark.parametrize(
    ("arguments", "is_sweep"),
    [(["-m"], True), (["--multirun"], True), (["hydra.mode=MULTIRUN"], True), (["seed=0,1"], False), (["-r"], False)],
)
def test_what_makes_a_sweep(arguments, is_sweep):
    assert overrides.parse(arguments).is_sweep == is_sweep


@pytest.mark.parametrize("arguments", [["--run", "-m"], ["-c", "job", "--multirun"], ["--run", "--cfg", "job"]])
def test_actions_that_exclude_each_other(arguments):
    assert "exclude each other" in overrides.parse(arguments).mistakes[0]
    assert overrides.parse(["-m", "--multirun"]).mistakes == []


def test_settings_are_shown_and_nothing_is_run():
    assert overrides.parse(["--cfg", "job"]).shows_settings
    assert not overrides.parse(["-m"]).shows_settings


def check(*arguments):
    return overrides.check(overrides.parse(arguments))


def test_every_value_of_a_sweep_is_in_a_job():
    result = check("-m", "distiller=logit_kd,dkd", "distiller.temperature=1,2,3", "seed=0,1")
    jobs = [(job.distiller._target_.rpartition(".")[2], job.distiller.temperature, job.seed) for job in result.jobs]
    assert jobs == [
        (name, temperature, seed) for name in ("LogitKD", "DKD") for temperature, seed in ((1, 0), (2, 1), (3, 0))
    ]


def test_of_an_interval_the_ends_are_tried():
    result = check("-m", "optimizer.lr=interval(0.001,0.1)")
    assert [job.optimizer.lr for job in result.jobs] == [0.001, 0.1]


def test_an_override_is_given_to_hydra_as_it_needs_it():
    result = check("scheduler=null", "seed=3", "distiller.loss_weights={soft:1}", "optimizer.foreach=true")
    assert result.mistakes == []
    assert result.overrides == [
        "~scheduler",
        "seed=3",
        "++distiller.loss_weights={soft:1}",
        "++optimizer.foreach=true",
    ]


def test_names_in_overrides_may_be_built():
    texts = ["+callbacks.x._target_=my.Callback", "student={_target_: my.Net}", "seed=0"]
    allowed = overrides.allowed_targets(texts, None)
    assert allowed - config.packaged_targets() == {"my.Callback", "my.Net"}


def test_names_in_the_folder_may_be_built(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "mine.yaml").write_text("_target_: mine.Mine\n")
    assert overrides.allowed_targets([], tmp_path) == {*config.packaged_targets(), "mine.Mine"}


def test_the_config_folder_of_a_command_in_a_report():
    assert overrides.folders_of("kdzoo --config-dir /my/conf seed=0") == [Path("/my/conf")]
    assert overrides.folders_of("kdzoo seed=0") == []
    assert overrides.folders_of("kdzoo.run('/a/config.yaml')") == []
    assert overrides.folders_of("kdzoo 'open") == []


@pytest.mark.parametrize(
    "line",
    [
        "distiller=logit_kd,dkd distiller.temperature=1,4 seed=range(0,3)",
        "distiller=glob(logit*) student.hidden=[8],[16] control=true",
        "distiller.temperature=choice(4,1) hydra/launcher=joblib hydra.launcher.n_jobs=2",
        "data=digits distiller.loss_weights={soft:1,hard:0},{soft:0.5,hard:0.5}",
    ],
)
def test_the_planned_jobs_of_a_sweep_are_those_of_hydra(line):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    result = overrides.check(overrides.parse(["-m", *line.split()]))
    assert not result.mistakes

    class Groups:
        """What Hydra's parser asks for the files that a pattern matches."""

        def get_group_options(self, group, results_filter=None):
            return config.groups()[group]

    parsed = OverridesParser.create(config_loader=Groups()).parse_overrides(result.overrides)
    (batch,) = BasicSweeper.split_arguments([item for item in parsed if "hydra" not in item.key_or_group], None)
    expected = [[text.removeprefix("++").lower().replace(" ", "") for text in job] for job in batch]
    assert [[text.lower().replace(" ", "") for text in job] for job in result.planned] == expected
