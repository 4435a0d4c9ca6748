"""A configuration from a file names classes of the right sort."""

import pytest
from omegaconf import OmegaConf

from kdzoo import config
from kdzoo.config.roles import check_roles, models_in
from kdzoo.errors import ConfigError

LOGGER, DATA, MODEL = "kdzoo.runs.loggers.WandbLogger", "kdzoo.data.Digits", "kdzoo.models.MLP"


@pytest.mark.parametrize(
    "settings",
    [
        {"data": {"_target_": LOGGER}},
        {"student": {"_target_": DATA}},
        {"student": {"_target_": MODEL, "layers": [{"_target_": LOGGER}]}},
        {"teacher_training": {"optimizer": {"_target_": LOGGER}}},
        {"control_training": {"optimizer": {"_target_": LOGGER}}},
        {"callbacks": {"a": {"_target_": DATA}}},
        {"trainer": {"_target_": "pytorch_lightning.Trainer", "profiler": {"_target_": LOGGER}}},
        {"unknown": {"_target_": DATA}},
    ],
)
def test_classes_of_another_sort_are_refused(settings):
    with pytest.raises(ConfigError, match=r"FILE: .* names .*, which is of another sort; allowed: "):
        check_roles(settings, "FILE")


@pytest.mark.parametrize("group", ["distiller", "experiment", "callbacks", "debug", "data"])
def test_every_packaged_configuration_has_classes_of_the_right_sort(group):
    for name in config.groups()[group]:
        cfg = config.compose(f"{group}={name}")
        settings = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "logger"]))
        check_roles(settings, "FILE")


def test_an_exported_model_may_name_packaged_models_and_allowed_classes():
    allowed = models_in({"my.Net", *config.packaged_targets()})
    assert {"my.Net", MODEL, "kdzoo.automata.PFA"} <= allowed
    assert not {LOGGER, DATA, "pytorch_lightning.Trainer", "torch.optim.Adam"} & allowed
