"""The schema of a class has the arguments that a configuration may set, with types, defaults and descriptions."""

import pytest

from kdzoo.config.schema.classes import arguments, class_schema, closed, default_of
from kdzoo.config.schema.sources import ConfigFiles
from kdzoo.config.schema.types import INTERPOLATION


@pytest.fixture(scope="module")
def files():
    return ConfigFiles(None)


def test_an_argument_has_type_default_and_description(files):
    schema = class_schema("kdzoo.distillers.DKD", files)
    assert schema["description"].startswith("Match the teacher's probability of the target class")
    assert schema["additionalProperties"] is False
    assert schema["properties"]["temperature"] == {
        "anyOf": [{"type": "number"}, INTERPOLATION],
        "description": files.targets["kdzoo.distillers.DKD"].comments["temperature"],
        "default": 4.0,
    }


def test_what_the_run_sets_is_left_out(files):
    assert not {"student", "teacher", "optimizer", "scheduler"} & arguments("kdzoo.distillers.DKD", files).keys()
    assert not {"callbacks", "logger"} & arguments("pytorch_lightning.Trainer", files).keys()
    assert "params" not in arguments("torch.optim.Adam", files)


def test_the_weights_are_those_of_the_terms(files):
    weights = arguments("kdzoo.distillers.DKD", files)["loss_weights"]
    assert set(weights["properties"]) == {"hard", "target", "nontarget"}
    assert weights["additionalProperties"] is False
    assert weights["properties"]["hard"]["anyOf"][0] == {"type": "number", "minimum": 0}


def test_a_class_that_cannot_be_read_is_open(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: nowhere.Data\nsize: 3  # samples\n")
    schema = class_schema("nowhere.Data", ConfigFiles(tmp_path))
    assert schema["properties"]["size"] == {"description": "samples"}
    assert "additionalProperties" not in schema
    assert closed("nowhere.Data", "kdzoo.models.MLP") == {}


def test_a_class_that_takes_any_name_is_open(tmp_path, monkeypatch):
    (tmp_path / "any_name.py").write_text("class Net:\n    def __init__(self, width: int, **options):\n        pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert closed("any_name.Net") == {}
    assert "additionalProperties" not in class_schema("any_name.Net", ConfigFiles(None))


@pytest.mark.parametrize("value", [None, 1, 0.5, "text", True, [1], {"a": 1}])
def test_plain_defaults(value):
    assert default_of(value) == {"default": value}


def test_other_defaults():
    assert default_of((1, 2)) == {"default": [1, 2]}
    for value in ("${seed}", "???", object(), ...):
        assert default_of(value) == {}
