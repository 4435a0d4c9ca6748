"""The sweepers can be chosen as soon as a configuration can be composed."""

import pytest
from hydra.core.plugins import Plugins

from kdzoo import config
from kdzoo.config import sweepers


@pytest.mark.parametrize(
    ("name", "target"), [("basic", sweepers.BASIC), ("grid", sweepers.GRID), ("optuna", sweepers.OPTUNA)]
)
def test_a_sweeper_is_chosen_by_its_name_and_is_a_plug_in_that_hydra_accepts(name, target):
    assert config.compose_all([f"hydra/sweeper={name}"], None).hydra.sweeper._target_ == target
    assert Plugins.is_in_toplevel_plugins_module(target)


def test_all_combinations_are_the_default_and_have_the_settings_of_ours():
    settings = [config.compose_all(line, None).hydra.sweeper for line in ([], ["hydra/sweeper=grid"])]
    assert settings[0]._target_ == sweepers.BASIC
    assert settings[0].keys() == settings[1].keys()
