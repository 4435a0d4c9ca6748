"""Every packaged file fits the schema of its group, and a file with a mistake does not."""

import json
import re

import pytest
from omegaconf import OmegaConf

from kdzoo import config
from kdzoo.config import schema
from kdzoo.errors import ConfigError

jsonschema = pytest.importorskip("jsonschema")
FOLDER = config.packaged_folder()
FILES = sorted(FOLDER.rglob("*.yaml"))
_validators = {}


def validator(group, folder=None):
    """Return a validator of the schema of a group, made once."""
    key = (group, folder)
    if key not in _validators:
        _validators[key] = jsonschema.Draft202012Validator(schema.document(group, folder))
    return _validators[key]


def mistakes(text, group="", folder=None):
    """Return path and message of each mistake in a YAML text, which is read as Hydra reads it."""
    content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    return [f"{error.json_path}: {error.message}" for error in validator(group, folder).iter_errors(content)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_packaged_file_fits(path):
    group = path.parent.relative_to(FOLDER).as_posix().replace(".", "")
    assert mistakes(path.read_text(encoding="utf-8"), group) == []


@pytest.mark.parametrize("group", ["", "distiller", "callbacks"])
def test_the_document_is_a_schema_whose_references_lead_somewhere(group):
    document = schema.document(group)
    jsonschema.Draft202012Validator.check_schema(document)
    references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(document)))
    assert references <= document["$defs"].keys()


def test_a_whole_configuration_fits():
    cfg = config.compose("seed=0", "distiller=dkd", "scheduler=cosine", "callbacks=early_stopping", "logger=csv")
    assert mistakes(OmegaConf.to_yaml(cfg)) == []
    assert mistakes(OmegaConf.to_yaml(cfg, resolve=True)) == []


EXPERIMENT = """# @package _global_
defaults:
  - hinton2015_mnist
  - mine_that_is_not_packaged
  - override /distiller: dkd
  - override /callbacks: [early_stopping, lr_monitor]
  - override /scheduler: null
  - _self_
seed: 0
distiller: {temperature: 2, loss_weights: {target: 1.0}}
student: {hidden: [800, 800]}
callbacks: {early_stopping: {patience: 3}}
teacher_training: {seed: "${seed}", optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}}
"""


def test_an_experiment_of_the_user_fits():
    assert mistakes(EXPERIMENT) == mistakes(EXPERIMENT, "experiment") == []


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ("seed: 0", "sed: 0", "$: "),
        ("seed: 0", "seed: first", "$.seed: "),
        ("seed: 0", "seed: true", "$.seed: "),
        ("temperature: 2", "temprature: 2", "$.distiller: "),
        ("temperature: 2", "temperature: hot", "$.distiller.temperature: "),
        ("temperature: 2", "determinism: 2", "$.distiller: "),  # an argument of another option than the chosen one
        ("target: 1.0", "soft: 1.0", "$.distiller.loss_weights: "),
        ("target: 1.0", "target: -1.0", "$.distiller.loss_weights.target: "),
        ("[800, 800]", "[800, wide]", "$.student.hidden: "),
        ("/distiller: dkd", "/distiller: dkk", "$.defaults[2]"),
        ("/distiller: dkd", "/distiler: dkd", "$.defaults[2]: "),
        ("[early_stopping, lr_monitor]", "[early]", "$.defaults[3]"),
        ("patience: 3", "patiense: 3", "$.callbacks.early_stopping: "),
        ("lr: 0.1", "lrr: 0.1", "$.teacher_training.optimizer: "),
        ("{hidden: [800, 800]}", "mlp", "$.student: "),
    ],
)
def test_a_mistake_in_an_experiment_is_found_where_it_is(right, wrong, place):
    assert EXPERIMENT.count(right) == 1
    found = mistakes(EXPERIMENT.replace(right, wrong))
    assert any(line.startswith(place) for line in found), found


def test_a_file_of_a_group():
    own = "_target_: my_kd.Mine\nanything: 3\n"
    extended = "defaults: [digits_labelled, {override /teacher@_global_.teacher: mlp}]\nbatch_size: 8\n"
    named = "mine: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss}\n"
    for group, text in {"distiller": own, "data": extended, "callbacks": named}.items():
        assert mistakes(text, group) == []
    assert mistakes(extended.replace("batch_size", "batchsize"), "data")
    assert mistakes(extended.replace("digits_labelled", "digit"), "data")
    assert mistakes(named.replace("monitor", "monitr"), "callbacks")
    assert mistakes("_target_: kdzoo.distillers.DKD\ntemperature: [1]\n", "distiller")


def test_objects_in_lists_of_unknown_type_are_checked():
    members = "teacher: {members: [{_target_: kdzoo.models.MLP, hidden: [8]}]}\n"
    assert mistakes(members) == []
    assert mistakes(members.replace("hidden", "hiden"))


def test_the_files_and_classes_of_the_user_are_known(tmp_path, monkeypatch):
    (tmp_path / "schema_nets.py").write_text("class Tiny:\n    def __init__(self, width: int = 3):\n        pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "tiny.yaml").write_text("_target_: schema_nets.Tiny\n")
    text = "defaults: [{override /student: tiny}]\nstudent: {width: 8}\n"
    assert mistakes(text)  # the packaged files do not have it
    assert mistakes(text, "", tmp_path) == []
    assert mistakes(text.replace("width", "wdith"), "", tmp_path)
    assert mistakes(text.replace("8", "wide"), "", tmp_path)


def test_an_unknown_group_is_refused():
    with pytest.raises(ConfigError, match=r"^'distler' is not a config group; did you mean 'distiller'\?; groups: "):
        schema.document("distler")
