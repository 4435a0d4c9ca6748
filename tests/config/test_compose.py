"""Composition, construction, and the agreement of every YAML file with the signature it is for."""

import inspect

import pytest
import yaml

import kdzoo.distillers
from kdzoo import config
from kdzoo.config import registry, validate
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError

CONF = config.packaged_folder()


def nodes(tree):
    """Yield every mapping with ``_target_`` in a tree."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield tree
        tree = list(tree.values())
    for child in tree if isinstance(tree, list) else []:
        yield from nodes(child)


FILES = [path for path in sorted(CONF.rglob("*.yaml")) if list(nodes(yaml.safe_load(path.read_text())))]
BUILT = [(path, node) for path in FILES for node in nodes(yaml.safe_load(path.read_text()))]
IDS = [f"{path.parent.name}/{path.stem}" for path, _ in BUILT]
SIZED = {
    "teacher": {"hidden", "channels", "depth", "width"},
    "inner_network": {"hidden", "kernel_size", "padding", "norm", "activation", "pooling", "init"},
}
"""Teachers are larger than the defaults of their class; inner networks have the sizes that papers use."""
NO_ARGUMENTS = {*validate.HYDRA_KEYS, "defaults"}
OWN_DEFAULTS = {
    ("digits", "batch_size"): "a small data set",
    ("digits_labelled", "labels_per_class"): "what it is there for",
    ("hvae_conditional", "conditional"): "what it is there for",
    ("online_pfa", "n_samples"): "a stream is for more strings than fit into memory",
    ("poison", "steps"): "the attack of the paper is one step",
    ("dataset_poison", "protocols"): "networks that train on an attack from random weights say nothing of it",
    ("digits", "labels_per_class"): "the shipped main job is distillation with few labels",
}


def test_every_group_has_files_that_build():
    assert {"distiller", "data", "optimizer", "scheduler", "teacher", "student", "trainer", "callbacks", "logger"} <= {
        path.parent.name for path in FILES
    }


@pytest.mark.parametrize(("path", "node"), BUILT, ids=IDS)
def test_every_key_is_an_argument(path, node):
    parameters = config.parameters(config.locate(node["_target_"]))
    keys = set(node) - NO_ARGUMENTS
    assert keys <= set(parameters) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


OURS = [
    (path, node) for path, node in BUILT if node["_target_"].startswith("kdzoo.") and path.parent.name != "experiment"
]


@pytest.mark.parametrize(("path", "node"), OURS, ids=[f"{p.parent.name}/{p.stem}" for p, _ in OURS])
def test_every_scalar_default_is_that_of_the_signature(path, node):
    parameters = config.parameters(config.locate(node["_target_"]))
    for key, value in node.items():
        free = key in NO_ARGUMENTS or key in SIZED.get(path.parent.name, ()) or (path.stem, key) in OWN_DEFAULTS
        if free or isinstance(value, dict | list) or (isinstance(value, str) and ("${" in value or value == "???")):
            continue
        default = parameters[key].default
        if default is not inspect.Parameter.empty:
            assert (type(value), value) == (type(default), default), key


DISTILLERS = sorted((CONF / "distiller").glob("*.yaml"))


@pytest.mark.parametrize("path", DISTILLERS, ids=lambda path: path.stem)
def test_loss_weights_are_the_terms_of_the_class(path):
    method = config.locate(registry.targets("distiller")[path.stem])
    assert registry.settings("distiller", path.stem).get("loss_weights", {}) == dict(method.info.terms)


def test_every_distiller_has_a_file():
    targets = {yaml.safe_load(path.read_text())["_target_"] for path in DISTILLERS}
    classes = [getattr(kdzoo.distillers, name) for name in kdzoo.distillers.__all__]
    methods = [method for method in classes if issubclass(method, Distiller) and method.info.terms]
    with_terms = {f"kdzoo.distillers.{method.__name__}" for method in methods}
    assert with_terms <= targets


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_has_a_comment(path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    keys = [line for line in lines if ":" in line and not line.strip().startswith(("#", "_", "- _", "- override"))]
    headings = [line for line in keys if line.endswith(":")]
    bare = [line for line in keys if "  # " not in line and line not in headings]
    assert not bare or path.parent.name == "experiment"


# ---------------------------------------------------------------- composition


def test_the_same_settings_have_the_same_name():
    one, same = config.compose("seed=0"), config.compose("seed=0", "cache_dir=/elsewhere")
    other = config.compose("seed=1")
    assert one.output_dir == same.output_dir != other.output_dir
    assert one.output_dir.startswith("outputs/logit_kd-digits-")


def test_an_experiment_and_debug_have_the_last_word():
    assert config.compose("debug=fast").seed == 0
    assert config.compose("experiment=hinton2015_mnist", "debug=fast").trainer.max_epochs == 2


def test_compose_takes_keys_of_the_signature_and_a_folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "tiny.yaml").write_text("_target_: kdzoo.models.MLP\n")
    cfg = config.compose("student=tiny", "student.hidden=[3]", config_dir=tmp_path)
    assert cfg.student == {"_target_": "kdzoo.models.MLP", "hidden": [3]}


@pytest.mark.parametrize("group", ["teacher", "scheduler"])
def test_compose_takes_null_for_a_group(group):
    cfg = config.compose("distiller=supervised", f"{group}=null")
    assert cfg.get(group) is None


@pytest.mark.parametrize("override", ["distiller=nothing", "seed=[", "~nothing"])
def test_compose_says_in_one_line_what_is_wrong(override):
    with pytest.raises(ConfigError) as error:
        config.compose(override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data=digit", r"data=digit does not exist; did you mean 'digits'\?; data can be arrays, "),
        ({"data": "digits"}, r"compose takes overrides as strings, such as 'data=digits', got \{'data': 'digits'\}"),
    ],
)
def test_compose_names_what_is_allowed(override, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        config.compose(override)


def test_targets_in_reads_names_without_importing(tmp_path):
    (tmp_path / "a.yaml").write_text("x:\n  - _target_: one.Two\n  - {y: 1}\nz:\n  _target_: 'three.Four'  # comment\n")
    assert config.targets_in(tmp_path) == {"one.Two", "three.Four"}


def test_an_option_that_a_file_names_and_its_group_lacks(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /distiller: dkdd\n"
    (tmp_path / "experiment" / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^distiller=dkdd does not exist; did you mean 'dkd'\?; distiller can be "):
        config.compose("experiment=bad", config_dir=tmp_path)
