"""The YAML files and the signatures say the same."""

import inspect
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from kdzoo import config
from kdzoo import data as kdzoo_data

FOLDER = Path(__file__).parents[2] / "conf" / "data"
FILES = sorted(FOLDER.glob("*.yaml"))
WHOLE = [file for file in FILES if "defaults" not in yaml.safe_load(file.read_text())]
"""The files that do not extend another."""


def parameters(kind):
    """All arguments with their defaults; ``**options`` are those of the base class."""
    own = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            base = next(b for b in kind.__mro__[kind.__mro__.index(_owner(kind)) + 1 :] if "__init__" in vars(b))
            own = {**parameters(base), **own}
        elif name != "self":
            own[name] = parameter.default
    return own


def _owner(kind):
    return next(base for base in kind.__mro__ if "__init__" in vars(base))


def test_one_file_for_each_data_set():
    images = ["arrays", "celeba", "cifar10", "digits", "digits_labelled", "fashion_mnist", "mnist", "svhn"]
    strings = [
        "one_hot_strings",
        "oracle_lstm",
        "pautomac",
        "random_automaton",
        "reber",
        "strings",
        "tinyshakespeare",
        "tomita",
        "uhl",
    ]
    real = ["gaussian_mixture", "iam_ondb", "kanji_strokes", "old_faithful", "polymusic"]
    texts = ["docstring_modules", "docstrings", "shakespeare_text", "sst2", "text", "text_classes"]
    assert [file.stem for file in FILES] == sorted(images + strings + real + texts)


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.stem)
def test_keys_and_defaults_equal_the_signature(file):
    node = yaml.safe_load(file.read_text())
    package, name = node.pop("_target_").rsplit(".", 1)
    assert package == "kdzoo.data"
    assert node.pop("seed") == "${seed}"
    expected = parameters(getattr(kdzoo_data, name))
    assert expected.pop("seed") == 0
    assert node.keys() == expected.keys()
    if "tokenizer" in node:
        assert (node.pop("tokenizer"), expected.pop("tokenizer")) == ("${oc.select:teacher.path,null}", None)
    for key, default in expected.items():
        if default is inspect.Parameter.empty:
            assert node[key] == "???"
        else:
            assert node[key] == (list(default) if isinstance(default, tuple) else default)
            assert type(node[key]) is type(default) or isinstance(default, tuple)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_line_has_a_comment(file):
    lines = file.read_text().splitlines()
    assert all("#" in line for line in lines if not line.startswith("defaults: "))


def test_a_file_that_extends_another_changes_what_it_names():
    plain, labelled = (
        config.to_container(config.compose(f"data={name}").data) for name in ("digits", "digits_labelled")
    )
    assert labelled == {**plain, "labels_per_class": None}
    assert plain["labels_per_class"] == 6


def test_options_may_be_omegaconf():
    node = OmegaConf.create({"augment": {"shift": 1}, "exclude_classes": [1], "val_size": 0.2})
    data = kdzoo_data.Digits(augment=node.augment, exclude_classes=node.exclude_classes, val_size=node.val_size)
    data.setup()
    assert data.is_augmented
    assert 1 not in data.splits.train.targets
