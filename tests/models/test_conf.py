"""The packaged teacher and student files build, and say what the signatures say."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import kdzoo.models
from kdzoo.config import SIZES
from tests.models.packaged import packaged

CONF = Path(__file__).parents[2] / "conf"
FROM_DATA = {"in_shape": (1, 12, 12), "num_classes": 10, "vocab_size": 10}
TEACHERS_ONLY = {"ensemble", "lm_ensemble"}
LANGUAGE_MODELS = {"rnn_lm", "transformer_lm", "causal_lm", "lm_ensemble"}
NEED_FILES = {"hf", "causal_lm"}
OURS = {"mlp", "convnet", "lenet", "resnet", "hf", "ensemble"} | LANGUAGE_MODELS
FILES = [CONF / group / f"{name}.yaml" for group in ("teacher", "student") for name in sorted(OURS)]
FILES = [file for file in FILES if file.exists()]
IDS = [f"{file.parent.name}/{file.stem}" for file in FILES]


def to_container(file):
    return OmegaConf.to_container(OmegaConf.create(packaged(file.parent.name, file.stem)), resolve=True)


def build(node):
    """As the pipeline does: nested targets first, and the data's sizes to whoever takes them."""
    if isinstance(node, list):
        return [build(item) for item in node]
    if not (isinstance(node, dict) and "_target_" in node):
        return node
    target = getattr(kdzoo.models, node["_target_"].rpartition(".")[2])
    accepted = inspect.signature(target).parameters
    sizes = {name: size for name, size in FROM_DATA.items() if name in accepted}
    return target(**sizes, **{key: build(value) for key, value in node.items() if key != "_target_"})


def test_the_files_are_there():
    assert set(IDS) == {f"teacher/{name}" for name in OURS} | {f"student/{name}" for name in OURS - TEACHERS_ONLY}


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_every_argument_is_there_with_its_default(file):
    config = to_container(file)
    target = config.pop("_target_")
    assert target.startswith("kdzoo.models.")
    signature = inspect.signature(getattr(kdzoo.models, target.removeprefix("kdzoo.models."))).parameters
    assert list(config) == [name for name in signature if name not in SIZES]
    sizes = {"depth", "width", "hidden", "channels"} if file.parent.name == "teacher" else set()
    for name, value in config.items():
        if signature[name].default is not inspect.Parameter.empty and name not in sizes:
            default = signature[name].default
            assert value == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_every_key_has_a_comment(file):
    head, *lines = file.read_text().splitlines()
    assert head.startswith("# ")
    settings = [
        line for line in lines if not line.startswith(("#", "defaults:", "  - /teacher@_here_: ", "_target_: "))
    ]
    assert all(re.search(r"  # \S", line) for line in settings)


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.stem not in NEED_FILES], ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_each_file_builds_a_model(file):
    if file.stem in LANGUAGE_MODELS:
        assert build(to_container(file))(torch.zeros(3, 4, dtype=torch.long)).shape == (3, 4, 10)
    else:
        assert build(to_container(file))(torch.randn(3, 1, 12, 12)).shape == (3, 10)
