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
    ("pfa", "states"): "a teacher is trained by Baum-Welch, which needs a number; methods find that of a student",
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


def test_equal_numbers_have_the_same_name_where_the_argument_is_a_float():
    assert config.run_id(config.compose("distiller.temperature=4")) == config.run_id(config.compose())
    batches = [config.run_id(config.compose(f"trainer.limit_train_batches={n}")) for n in ("1", "1.0")]
    assert batches[0] != batches[1]  # one batch, and all batches


def test_an_experiment_and_debug_have_the_last_word():
    assert config.compose("debug=fast").seed == 0
    assert config.compose("experiment=hinton2015_mnist", "debug=fast").trainer.max_epochs == 2


def test_compose_takes_keys_of_the_signature_and_a_folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "tiny.yaml").write_text("_target_: kdzoo.models.MLP\n")
    cfg = config.compose("student=tiny", "student.hidden=[3]", config_dir=tmp_path)
    assert cfg.student == {"_target_": "kdzoo.models.MLP", "hidden": [3]}


def test_settings_know_the_command_line_of_their_overrides(tmp_path):
    cfg = config.compose("seed=0", "student.hidden=[3, 4]")
    assert config.composing_command(cfg) == "kdzoo seed=0 'student.hidden=[3, 4]'"
    cfg.student.hidden = [5]
    assert config.composing_command(cfg) == ""
    of_folder = config.compose("seed=1", config_dir=tmp_path)
    assert config.composing_command(of_folder) == f"kdzoo --config-dir {tmp_path} seed=1"


def test_settings_that_cannot_be_resolved_are_composed():
    assert config.compose("student.hidden=${nothing}", "output_dir=here").output_dir == "here"


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


BROKEN = {
    "not_text": (b"seed: \xff", r"not_text\.yaml is not valid YAML: 'utf-8' codec can't decode"),
    "itself": (b"defaults: [itself]\nseed: 0\n", "includes itself in its defaults"),
    "twice": (b"seed: 0\nseed: 1\n", r"twice\.yaml, line 3: found duplicate key seed$"),
    "open": (b"distiller: {temperature: '${seed'}\n", "distiller.temperature: .* at input '\\${seed'"),
    "bracket": (b"seed: [0\n", r"bracket\.yaml, line \d: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_when_it_is_chosen_and_in_nobodys_way_otherwise(name, tmp_path):
    content, message = BROKEN[name]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / f"{name}.yaml").write_bytes(b"# @package _global_\n" + content)
    assert config.compose("seed=3", config_dir=tmp_path).seed == 3
    assert config.targets_in(tmp_path) == set()
    with pytest.raises(ConfigError, match=message) as caught:
        config.compose(f"experiment={name}", config_dir=tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_targets_are_read_from_flow_style_too(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {_target_: x.A, b: [{_target_: 'x.B'}]}\nc:\n  - _target_: x.C  # comment\n")
    (tmp_path / "b.yaml").write_text("# _target_: x.D\ntext: '_target_: x.E'\n")
    assert config.targets_in(tmp_path) == {"x.A", "x.B", "x.C"}


def test_brackets_in_brackets_are_one_error():
    with pytest.raises(ConfigError, match="brackets in brackets"):
        config.compose("student.hidden=" + "[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    ("override", "is_same"),
    [("output_dir=elsewhere", True), ("cache_dir=elsewhere", True), ("logger=csv", True), ("data.batch_size=7", False)],
)
def test_a_run_is_named_after_what_determines_its_result(override, is_same):
    names = [config.run_id(config.compose("distiller=logit_kd", *overrides)) for overrides in ((), (override,))]
    assert (names[0] == names[1]) == is_same


def test_the_schedules_of_teacher_and_control_are_over_their_own_epochs():
    epochs = ("trainer.max_epochs=7", "teacher_training.max_epochs=3", "control_training.max_epochs=9")
    settings = config.plain_settings(config.compose("scheduler=cosine", *epochs))
    assert settings["scheduler"]["T_max"] == 7
    assert settings["teacher_training"]["scheduler"]["T_max"] == 3
    assert settings["control_training"]["scheduler"]["T_max"] == 9
