"""Checkpoints and exported models are whole, checked, and never code."""

import os
import pickle
import random

import pytest
import torch

from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import MLP
from kdzoo.storage import checked_json
from kdzoo.storage.checkpoint import load_student, read_checkpoint, save_model

NODE = {"_target_": "kdzoo.models.MLP", "in_shape": [4], "num_classes": 3, "hidden": [5]}


@pytest.fixture
def exported(tmp_path):
    torch.manual_seed(0)
    model = MLP(in_shape=[4], num_classes=3, hidden=[5])
    save_model(model, NODE, tmp_path / "student")
    return model, tmp_path / "student"


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def test_round_trip(exported):
    model, folder = exported
    inputs = torch.randn(6, 4)
    for path in (folder, str(folder), folder.parent):
        again = load_student(path)
        assert not again.training
        assert torch.equal(again(inputs), model(inputs))


def test_every_flipped_bit_of_the_weights_is_found(exported):
    folder = exported[1]
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for position in random.sample(range(len(whole)), 40):
        flip(path, position)
        with pytest.raises(CheckpointError, match="is corrupt"):
            load_student(folder)
        path.write_bytes(whole)


def describe(folder, **changes):
    """Change the description of an exported model, with a checksum that fits."""
    path = folder / "config.json"
    checked_json.write(path, checked_json.read(path) | changes)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2, "model": {}, "sha256": ""}', "null"])
def test_a_damaged_description(exported, text):
    (exported[1] / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is (not valid JSON|damaged)"):
        load_student(exported[1])


@pytest.mark.parametrize(
    "change", [{"format": 1}, {"model": {}}, {"model": {"_target_": 3}}, {"model": []}, {"sha256": None}]
)
def test_a_description_of_something_else(exported, change):
    describe(exported[1], **change)
    with pytest.raises(CheckpointError, match=r"config\.json is not the description of an exported model"):
        load_student(exported[1])


def test_a_changed_argument_in_a_description_is_found(exported):
    path = exported[1] / "config.json"
    path.write_text(path.read_text().replace('"in_shape"', '"in_shap"'))
    with pytest.raises(CheckpointError, match="its content does not have the checksum that it states"):
        load_student(exported[1])


def test_a_missing_file(exported, tmp_path):
    (exported[1] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_student(exported[1])
    with pytest.raises(CheckpointError, match="must be the folder of an exported model"):
        load_student(tmp_path / "nowhere")


def test_weights_of_another_architecture(exported):
    card = checked_json.read(exported[1] / "config.json")
    describe(exported[1], model={**card["model"], "hidden": [7]})
    with pytest.raises(CheckpointError, match=r"do not fit kdzoo\.models\.MLP"):
        load_student(exported[1])


@pytest.mark.parametrize("target", ["os.system", "torch.load", "builtins.eval", "kdzoo.models.mlp.MLP"])
def test_a_description_builds_only_what_is_allowed(exported, target):
    describe(exported[1], model={"_target_": target})
    with pytest.raises(ConfigError, match="_target_"):
        load_student(exported[1])


def test_a_checkpoint_that_is_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt", pickle_module=pickle)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def is_refused(path, weight):
    """Whether a file is refused; if not, the bit was in the padding between records and changed nothing."""
    try:
        read = read_checkpoint(path)
    except CheckpointError:
        return True
    assert torch.equal(read["state_dict"]["weight"], weight)
    return False


def test_every_damage_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.randn(500)}, "epoch": 3}, path)
    whole = path.read_bytes()
    assert read_checkpoint(path)["epoch"] == 3
    content, refused = read_checkpoint(path), 0
    for position in random.sample(range(len(whole)), 60):
        flip(path, position)
        refused += is_refused(path, content["state_dict"]["weight"])
        path.write_bytes(whole)
    assert refused > 20
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=rf"truncated or not a checkpoint \({size} bytes\)"):
            read_checkpoint(path)
    path.write_bytes(random.randbytes(3000))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
