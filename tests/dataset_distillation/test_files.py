"""Files of synthetic sets: what is written is read again, damage is detected, and plain torch trains from them."""

import ast
import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch import nn

from kdzoo.data import MNIST
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.files import SavedSet, read, write, write_npz
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.dataset_distillation.protocols import protocol_matrix
from kdzoo.errors import CheckpointError

SNIPPET = Path(__file__).parents[2] / "docs" / "methods" / "dataset_snippet.py"
NAMES = ("synthetic.safetensors", "synthetic.npz", "synthetic.json")
some = settings(max_examples=150, deadline=None, derandomize=True)


def make_set(**options):
    torch.manual_seed(0)
    inner_networks = {
        "linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 3))),
        "deep": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)), fixed=5),
    }
    settings = {"in_shape": (1, 2, 3), "num_classes": 3, "steps": 4, "step_sizes": "shared", "optimizer": "momentum"}
    synthetic_set = SyntheticSet(inner_network=inner_networks, **settings | options)
    synthetic_set.step_sizes["deep"].data.fill_(0.3)
    return synthetic_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "student"
    write(make_set(), folder)
    return folder


def tensors(content):
    """Return all tensors of what was read, by name."""
    result = {"images": content.images, "labels": content.labels}
    result |= {f"step_sizes.{name}": sizes for name, sizes in content.step_sizes.items()}
    for inner_network, start in content.initial_weights.items():
        result |= {f"initial_weights.{inner_network}.{name}": weights for name, weights in start.items()}
    return result


def is_same(first, second):
    return (
        tensors(first).keys() == tensors(second).keys()
        and all(torch.equal(tensors(first)[name], tensors(second)[name]) for name in tensors(first))
        and (first.optimizer, first.about) == (second.optimizer, second.about)
    )


# ---------------------------------------------------------------- what is written


def test_every_file_is_read_as_it_was_written(tmp_path):
    synthetic_set = make_set()
    assert write(synthetic_set, tmp_path / "new" / "folder") == [tmp_path / "new" / "folder" / name for name in NAMES]
    for path in (tmp_path / "new" / "folder", *(tmp_path / "new" / "folder" / name for name in NAMES[:2])):
        content = read(path)
        assert torch.equal(content.images, synthetic_set.images)
        assert torch.equal(content.labels, synthetic_set.labels)
        assert list(content.step_sizes) == ["linear", "deep"]
        assert content.step_sizes["linear"].tolist() == pytest.approx([0.05] * 4)
        assert content.step_sizes["deep"].tolist() == pytest.approx([0.3] * 4)
        assert content.optimizer == "momentum"
        deep = synthetic_set.inner_networks["deep"]
        assert list(content.initial_weights) == ["deep"]
        expected = deep.state(deep.sample(1)[0])
        assert content.initial_weights["deep"].keys() == expected.keys()
        assert all(torch.equal(content.initial_weights["deep"][name], expected[name]) for name in expected)
        assert not content.images.requires_grad


def test_a_folder_is_read_from_either_file(folder, tmp_path):
    for name in NAMES[:2]:
        single = tmp_path / name.replace(".", "_")
        single.mkdir()
        (single / name).write_bytes((folder / name).read_bytes())
        assert is_same(read(single), read(folder))


def test_numpy_and_safetensors_read_the_same_arrays_without_kdzoo(folder):
    by_name = load_file(folder / "synthetic.safetensors")
    parameters = ("1.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias")
    assert set(by_name) == {
        "images",
        "labels",
        "step_sizes.linear",
        "step_sizes.deep",
        *(f"initial_weights.deep.{name}" for name in parameters),
    }
    with np.load(folder / "synthetic.npz", allow_pickle=False) as file:
        assert set(file.files) == {*by_name, "about"}
        assert all(np.array_equal(file[name], by_name[name].numpy()) for name in by_name)
        assert json.loads(str(file["about"])) == json.loads((folder / "synthetic.json").read_text())


def test_the_description_has_what_is_needed_to_train(folder):
    about = json.loads((folder / "synthetic.json").read_text())
    assert about["format"] == 1
    assert about["shapes"]["images"] == [3, 1, 2, 3]
    assert about["layout"]["images"].startswith("[example, channel, row, column]")
    assert about["steps"] == 4
    assert (about["optimizer"]["name"], about["optimizer"]["momentum"]) == ("momentum", 0.9)
    assert "mean over the examples" in about["loss"]
    assert about["versions"]["torch"] == torch.__version__
    linear, deep = about["inner_networks"]["linear"], about["inner_networks"]["deep"]
    assert linear["class"] == "Sequential"
    assert linear["layers"]["1"] == "Linear(in_features=6, out_features=3, bias=True)"
    bound = (6 / (6 + 3)) ** 0.5
    weight = linear["initial"]["1.weight"]
    assert (weight["shape"], weight["distribution"]) == ([3, 6], "uniform")
    assert (weight["low"], weight["high"]) == pytest.approx((-bound, bound))
    assert linear["initial"]["1.bias"] == {"shape": [3], "distribution": "constant", "value": 0}
    assert deep["initial"]["2.weight"] == {"shape": [4], "distribution": "constant", "value": 1}
    assert linear["start"] != deep["start"]
    assert "initial_weights" in deep["start"]


def test_the_description_of_other_starts_and_optimizers(tmp_path):
    inner_networks = {
        "normal": InnerNetwork(nn.Linear(6, 3), init="normal", mean=0.5, std=0.25),
        "pool": InnerNetwork(nn.Linear(6, 3), pool=40, pool_steps=70),
    }
    synthetic_set = SyntheticSet(in_shape=(6,), num_classes=3, inner_network=inner_networks, optimizer="adam")
    content = read(write_npz(synthetic_set, tmp_path / "adam.npz"))
    assert content.optimizer == "adam"
    assert content.about["optimizer"]["betas"] == [0.9, 0.999]
    assert content.about["layout"]["images"].startswith("[example, feature]")
    normal = content.about["inner_networks"]["normal"]["initial"]["weight"]
    assert normal == {"shape": [3, 6], "distribution": "normal", "mean": 0.5, "std": 0.25}
    assert "one of 40 networks" in content.about["inner_networks"]["pool"]["start"]
    assert "70 steps of Adam" in content.about["inner_networks"]["pool"]["start"]


def test_the_same_set_gives_the_same_bytes(folder, tmp_path):
    write(make_set(), tmp_path)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in NAMES)


def test_what_was_read_is_immutable(folder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(folder).optimizer = "adam"
    assert isinstance(read(folder), SavedSet)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_changed_byte_is_detected_or_has_no_effect(name, folder, tmp_path):
    expected, content, path = read(folder / name), (folder / name).read_bytes(), tmp_path / name
    messages = []

    @some
    @given(st.integers(0, len(content) - 1), st.integers(1, 255))
    def check(place, change):
        path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        try:
            assert is_same(read(path), expected)
        except CheckpointError as error:
            messages.append(str(error))

    check()
    assert len(messages) > 100
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_truncated_file_is_refused(name, folder, tmp_path):
    content, path = (folder / name).read_bytes(), tmp_path / name
    for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="damaged or not a synthetic set"):
            read(path)


def test_the_description_is_protected_by_the_checksum(folder, tmp_path):
    content = (folder / "synthetic.safetensors").read_bytes()
    path = tmp_path / "synthetic.safetensors"
    path.write_bytes(content.replace(b'momentum\\": 0.9', b'momentum\\": 0.8'))
    assert path.read_bytes() != content
    with pytest.raises(CheckpointError, match="does not have the sha256"):
        read(path)


class Harmful:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    trace = tmp_path / "trace"
    np.savez(tmp_path / "archive.npz", images=np.array([Harmful(trace)], dtype=object), about=np.array("{}"))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Harmful(trace)))
    torch.save(Harmful(trace), tmp_path / "torch.npz")
    for name in ("archive", "bare", "torch"):
        with pytest.raises(CheckpointError, match="not a synthetic set"):
            read(tmp_path / f"{name}.npz")
    assert not trace.exists()


def test_foreign_files_are_refused(folder, tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 3)))
    save_file({"images": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    for name in ("other.npz", "other.safetensors"):
        with pytest.raises(CheckpointError, match="not a synthetic set of format 1: its entry 'about' has format None"):
            read(tmp_path / name)
    np.savez(tmp_path / "newer.npz", about=np.array(json.dumps({"format": 2})))
    with pytest.raises(CheckpointError, match="'about' has format 2"):
        read(tmp_path / "newer.npz")
    np.savez(tmp_path / "list.npz", about=np.array("[1]"))
    with pytest.raises(CheckpointError, match="damaged or not a synthetic set"):
        read(tmp_path / "list.npz")
    with pytest.raises(CheckpointError, match=r"must be a folder or end in \.safetensors or \.npz"):
        read(folder / "synthetic.json")
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path / "missing.npz")
    with pytest.raises(CheckpointError, match="holds no synthetic set"):
        read(tmp_path)


# ---------------------------------------------------------------- training without kdzoo

RUNS = HELD_OUT
FRESH = f"""
import runpy, sys, torch
ends = []
for seed in range({RUNS}):
    torch.manual_seed(seed)
    end = runpy.run_path({str(SNIPPET)!r})
    ends.append((end["w"], end["b"]))
torch.save(ends, "ends.pt")
print("kdzoo" in sys.modules)
"""


def digits():
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    return torch.from_numpy(pixels / 16).float().view(-1, 1, 8, 8), torch.from_numpy(targets)


def test_five_lines_of_torch_reach_the_reported_accuracy(tmp_path):
    """The snippet runs in a fresh process; the same networks are then trained and evaluated here."""
    inputs, targets = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    synthetic_set = SyntheticSet(
        in_shape=(1, 8, 8), num_classes=10, inner_network={"logistic": InnerNetwork(model)}, steps=12
    )
    torch.manual_seed(0)
    synthetic_set.images.data.copy_(torch.stack([inputs[targets == c].mean(0) for c in range(10)]))
    synthetic_set.labels.data.add_(0.1 * torch.randn(10, 10))
    synthetic_set.step_sizes["logistic"].data.copy_(torch.linspace(0.8, 0.2, 12))
    write(synthetic_set, tmp_path)
    answer = subprocess.run([sys.executable, "-c", FRESH], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
    ends = torch.load(tmp_path / "ends.pt", weights_only=True)
    accuracies = [((inputs.flatten(1) @ w.T + b).argmax(1) == targets).double().mean() for w, b in ends]

    held_out = InnerNetwork(model, pool=1)  # its held-out weights are those that the snippet drew
    pool = torch.zeros(1 + HELD_OUT, held_out.n_weights)
    for seed in range(RUNS):
        torch.manual_seed(seed)
        pool[1 + seed, :640] = nn.init.xavier_uniform_(torch.empty(10, 64)).flatten()
    held_out.set_pool(pool)
    reported = protocol_matrix(synthetic_set, {"logistic": held_out}, inputs, targets, protocols=["own"], inits=RUNS)
    assert torch.stack(accuracies).mean() == pytest.approx(float(reported.mean()), abs=1e-3)
    torch.testing.assert_close(torch.stack(accuracies), reported.accuracy.flatten(), rtol=0, atol=3e-3)
    assert torch.stack(accuracies).std() > 1e-3  # the initial weights matter
    assert torch.stack(accuracies).mean() > 0.6


def test_the_snippet_has_five_lines():
    body = ast.parse(SNIPPET.read_text()).body
    code = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
    lines = {node.lineno for statement in code for node in ast.walk(statement) if hasattr(node, "lineno")}
    assert len(lines) == 5


def test_the_description_states_how_pixels_were_standardised(tmp_path):
    write(make_set(), tmp_path / "stated", MNIST(root=tmp_path, normalise=True).pixels)
    stated = read(tmp_path / "stated").about["pixels"]
    assert (stated["mean"], stated["std"]) == ([0.1307], [0.3081])
    assert stated["value"] == "(pixel / 255 - mean) / std"
    write(make_set(), tmp_path / "unknown")
    assert read(tmp_path / "unknown").about["pixels"] == "not stated by the data"
