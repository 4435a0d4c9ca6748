"""Integers become floats where an argument takes floats alone, and nowhere else."""

import pytest

from kdzoo import config
from kdzoo.config.equal_settings import with_floats


def kd(**arguments):
    return {"_target_": "kdzoo.distillers.LogitKD", **arguments}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (kd(temperature=4), kd(temperature=4.0)),
        (kd(loss_weights={"soft": 1}), kd(loss_weights={"soft": 1.0})),
        (kd(micro_batch_size=4), kd(micro_batch_size=4)),
        (kd(unknown=4), kd(unknown=4)),
        ({"a": [kd(temperature=1)]}, {"a": [kd(temperature=1.0)]}),
        ({"_target_": "torch.optim.Adam", "betas": [0, 1]}, {"_target_": "torch.optim.Adam", "betas": [0.0, 1.0]}),
        ({"_target_": "kdzoo.models.MLP", "hidden": [8]}, {"_target_": "kdzoo.models.MLP", "hidden": [8]}),
        ({"_target_": "kdzoo.data.Digits", "val_size": 1}, {"_target_": "kdzoo.data.Digits", "val_size": 1}),
        ({"_target_": "not.There", "x": 1}, {"_target_": "not.There", "x": 1}),
    ],
)
def test_the_type_of_an_argument_decides(node, expected):
    result = with_floats(node)
    assert repr(result) == repr(expected)  # 4 == 4.0, and their representations differ


@pytest.mark.parametrize("experiment", config.groups()["experiment"])
def test_packaged_settings_are_written_in_this_form(experiment):
    """Otherwise the name of their run would depend on whether types can be read."""
    settings = config.result_settings(config.compose(f"experiment={experiment}"))
    assert repr(with_floats(settings)) == repr(settings)
