"""The settings of a run are read as data: plain, of the right sort, and writing only to their own folder."""

import pytest
import yaml
from omegaconf import OmegaConf

from kdzoo import config
from kdzoo.errors import ConfigError, RunFolderError
from kdzoo.runs import written_settings


def test_a_run_is_loaded_with_its_own_folder_and_seeds_that_follow_the_run(tmp_path):
    settings = OmegaConf.to_container(config.compose("seed=null", "output_dir=elsewhere"), resolve=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    loaded = written_settings.load(tmp_path / "config.yaml")
    assert loaded.output_dir == str(tmp_path)
    assert (loaded.seed, loaded.data.seed) == (None, None)
    assert OmegaConf.is_interpolation(loaded.data, "seed")
    assert config.plain_settings(loaded) == {**settings, "output_dir": str(tmp_path), "logger": None}


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"the configuration file .* does not exist"):
        written_settings.load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(RunFolderError, match="is not valid YAML"):
        written_settings.load(tmp_path / "config.yaml")


@pytest.mark.parametrize("place", ["", "student", "seed_0/student"])
def test_an_exported_model_is_measured_on_the_data_of_its_run(place, tmp_path):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "config.yaml").write_text("data: {_target_: kdzoo.data.Reber, n_train: 7}\nseed: 3\n")
    cfg = config.compose("data=digits", "seed=1")
    changed = written_settings.with_data_of_run(cfg, tmp_path / place)
    assert changed.data == {"_target_": "kdzoo.data.Reber", "n_train": 7}
    assert {key: changed[key] for key in changed if key != "data"} == {key: cfg[key] for key in cfg if key != "data"}


def test_the_student_of_a_trial_run_is_measured_on_as_few_and_as_short_samples(tmp_path):
    limits = {"max_samples": 5, "max_sequence_length": 4}
    (tmp_path / "config.yaml").write_text(f"data: {{_target_: kdzoo.data.Reber}}\nseed: 3\n{yaml.safe_dump(limits)}")
    changed = written_settings.with_data_of_run(config.compose("data=digits"), tmp_path / "student")
    assert {key: changed[key] for key in limits} == limits


@pytest.mark.parametrize(("place", "seed"), [("student", 5), ("seed_7/student", 7), ("seed_7/checkpoints", 7)])
def test_a_run_over_several_seeds_has_the_data_of_the_models_seed(place, seed, tmp_path):
    (tmp_path / "config.yaml").write_text(
        "data: {_target_: kdzoo.data.Digits, seed: null, root: null, parts: [{seed: null}, {seed: 2}]}\n"
        "seed: null\nseeds: [5, 7]\n"
    )
    changed = written_settings.with_data_of_run(config.compose("data=digits", "seed=1"), tmp_path / place)
    assert (changed.data.seed, changed.data.root) == (seed, None)
    assert changed.data.parts == [{"seed": seed}, {"seed": 2}]


def test_a_model_outside_of_a_run_is_measured_on_the_configured_data(tmp_path):
    cfg = config.compose("data=digits", "seed=1")
    assert written_settings.with_data_of_run(cfg, tmp_path / "a" / "b" / "c") is cfg


def test_interpolations_in_the_settings_of_a_run_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_text('data: {_target_: kdzoo.data.Reber, n_train: "${oc.env:HOME}"}\n')
    with pytest.raises(ConfigError, match=r"data.n_train has an interpolation .*only plain values are allowed"):
        written_settings.with_data_of_run(config.compose("data=digits", "seed=1"), tmp_path)
