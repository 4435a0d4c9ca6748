"""Loading of weights: formats, wrappers and prefixes, damage, foreign code and mismatches."""

import pickle
import re
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn

from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import MLP, ConvNet, Ensemble, load_weights, read_weights


def build(seed=0, **options):
    torch.manual_seed(seed)
    return MLP(**{"in_shape": (6,), "num_classes": 3, "hidden": [4], **options})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def renamed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


STATE = build().state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".ckpt", ".bin"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(STATE, path)
    assert same(read_weights(path), STATE)
    target = build(seed=1)
    assert load_weights(target, str(path)) is target
    assert same(target.state_dict(), STATE)


def test_old_torch_format(tmp_path):
    path = tmp_path / "old.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert same(read_weights(path), STATE)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "student.", "_orig_mod.", "student.module.", "model.model."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_wrappers_and_prefixes(tmp_path, prefix, wrapper):
    path = tmp_path / "weights.ckpt"
    content = renamed(STATE, prefix)
    torch.save({wrapper: content, "epoch": 3, "optimizer_states": [{}]} if wrapper else content, path)
    assert same(read_weights(path), STATE)
    assert same(load_weights(build(seed=1), path).state_dict(), STATE)


def test_the_students_part_of_a_distillers_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {**renamed(STATE, "student."), "regressor.weight": torch.zeros(2)}}, path)
    assert same(load_weights(build(seed=1), path).state_dict(), STATE)


def test_a_module_whose_own_names_have_a_prefix(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.model = build(seed)

    path = tmp_path / "weights.pt"
    torch.save(Wrapped(0).state_dict(), path)
    assert same(load_weights(Wrapped(1), path).model.state_dict(), STATE)
    assert same(load_weights(build(seed=1), path).state_dict(), STATE)


def test_batch_norm_and_ensembles_round_trip(tmp_path):
    def ensemble():
        return Ensemble([ConvNet(in_shape=(1, 8, 8), num_classes=2, norm="batch") for _ in range(2)])

    source, target, path = ensemble(), ensemble(), tmp_path / "weights.safetensors"
    source(torch.randn(4, 1, 8, 8))  # moves the running statistics
    safetensors.torch.save_file(source.state_dict(), path)
    assert same(load_weights(target, path).state_dict(), source.state_dict())


def test_the_modules_dtype_stays(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({name: tensor.half() for name, tensor in STATE.items()}, path)
    assert load_weights(build(seed=1), path).head.weight.dtype == torch.float32


def refusal(path, reader=read_weights):
    with pytest.raises(CheckpointError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path)).strip()


def attempt(path, reader=read_weights):
    """What the reader gives, or None where it refuses the file."""
    try:
        return reader(path)
    except CheckpointError:
        return None


@pytest.mark.parametrize("url", ["https://example.org/w.pt", "s3://bucket/w.safetensors", "file:///tmp/w.pt"])
def test_urls_are_refused(url):
    with pytest.raises(ConfigError, match=f"^path must be a local file, got the URL {re.escape(repr(url))}$"):
        read_weights(url)


def test_missing_folder_and_unknown_name(tmp_path):
    assert refusal(tmp_path / "none.pt") == "is missing or not a regular file"
    assert refusal(tmp_path) == "is missing or not a regular file"
    other = tmp_path / "weights.zip"
    other.write_bytes(b"x")
    assert refusal(other) == "must be named .safetensors, .pt, .pth, .ckpt, .bin"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_empty_and_garbage(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"")
    assert refusal(path) == "is empty"
    for garbage in (
        b"hello, I am a text file\n",
        b"\0" * 100,
        b"\xff" * 100,
        b"P",
        b"PK\x03\x04",
        b"\x80\x02.",
    ):
        path.write_bytes(garbage)
        assert refusal(path)
    path.write_text("<!DOCTYPE html>\n<html><body>404</body></html>\n")  # what a failed download leaves
    assert refusal(path)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_every_truncation_is_detected(tmp_path, kind):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    for size in {*range(1, len(content), 61), len(content) - 1}:
        path.write_bytes(content[:size])
        assert refusal(path)


def test_a_flipped_byte_in_a_safetensors_header_never_loads_other_weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(STATE, path)
    content = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    for position in range(end):
        content[position] ^= 0x01
        path.write_bytes(content)
        target = build(seed=1)
        before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
        loaded = attempt(path, lambda p, target=target: load_weights(target, p).state_dict())
        # all or nothing; a byte without effect, such as padding, may load
        assert same(target.state_dict(), before if loaded is None else STATE)
        content[position] ^= 0x01


def test_a_flipped_byte_in_a_torch_zip_never_loads_other_weights(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), 7):
        content[position] ^= 0x10
        path.write_bytes(content)
        loaded = attempt(path)
        assert loaded is None or same(loaded, STATE)  # a byte without effect, such as padding, may load
        content[position] ^= 0x10


def test_a_flipped_byte_in_the_payload_names_the_record(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    payload = STATE["head.weight"].numpy().tobytes()
    content[content.index(payload) + 5] ^= 0x01
    path.write_bytes(content)
    assert re.fullmatch(r"is corrupt: the checksum of .*data/\d+ does not match", refusal(path))


class Malicious:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, on the plain pickle; it is refused
@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, kind):
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    content = {**STATE, "extra": Malicious(trace)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"extra": Malicious(trace)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert refusal(path) == "is not a torch file, or holds Python objects, which are not run"
    assert not trace.exists()


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(build(), path)
    assert "which are not run" in refusal(path)


def test_a_zip_that_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(path).startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(2), "must hold a dictionary of tensors, holds Tensor"),
        ([torch.zeros(2)], "must hold a dictionary of tensors, holds list"),
        ({}, "must hold a dictionary of tensors, holds an empty one"),
        ({"state_dict": {}}, "must hold a dictionary of tensors, holds an empty one"),
        ({"a": torch.zeros(1), "epoch": 3}, "must hold dense tensors only, 'epoch' is int"),
        ({1: torch.zeros(1)}, "must hold dense tensors only, 1 is Tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "must hold dense tensors only, 'a' is Tensor"),
        ({"a": torch.zeros(2, device="meta")}, "must hold dense tensors only, 'a' is Tensor"),
    ],
)
def test_anything_but_named_tensors_is_refused(tmp_path, content, reason):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert refusal(path) == reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hidden": [4, 4]}, "lacks 'layers.1.linear.weight', 'layers.1.linear.bias'"),
        (
            {"hidden": [6, 4, 4]},
            "lacks 'layers.1.linear.weight', 'layers.1.linear.bias', 'layers.2.linear.weight' and 1",
        ),
        ({"num_classes": 5}, "does not fit 'head.weight' [3, 4] for [5, 4], 'head.bias' [3] for [5]"),
        (
            {"hidden": []},
            "has unknown 'layers.0.linear.weight', 'layers.0.linear.bias'; does not fit 'head.weight'",
        ),
    ],
)
def test_weights_of_another_model_are_refused_and_none_is_copied(tmp_path, options, reason):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    target = build(seed=1, **options)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    message = refusal(path, lambda p: load_weights(target, p))
    assert message.startswith(f"does not match this MLP: {reason}")
    assert same(target.state_dict(), before)


def test_integers_for_floats_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({**STATE, "head.bias": torch.zeros(3, dtype=torch.int32)}, path)
    reason = "does not match this MLP: does not fit 'head.bias' torch.int32 for torch.float32"
    assert refusal(path, lambda p: load_weights(build(), p)) == reason
