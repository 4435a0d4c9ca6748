"""The store of teacher outputs returns what the teacher returns, or rejects what it finds."""

import hashlib
import json

import pytest
import torch
from torch import nn

from kdzoo.errors import CacheError, RunFolderError
from kdzoo.storage import teacher_outputs


def batches(inputs, size=1000):
    return [{"input": part} for part in inputs.split(size)]


def computation(teacher):
    """Return a function from a batch to the teacher's output, and its largest value with its place."""

    def compute(batch):
        output = teacher(batch["input"])
        return {"output": output, **dict(zip(("largest", "place"), output.max(1), strict=True))}

    return compute


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def never(batch):
    raise AssertionError("the teacher is run again")


@pytest.fixture
def store(tmp_path):
    torch.manual_seed(0)
    teacher, inputs = nn.Linear(4, 3).eval(), torch.randn(2500, 4)
    fingerprint = {"teacher": "a", "inputs and their order": "b", "dtype": "c"}
    compute = computation(teacher)
    outputs = teacher_outputs.load_or_compute(tmp_path, fingerprint, compute, batches(inputs))
    return tmp_path, fingerprint, compute, inputs, outputs


def test_the_second_time_nothing_is_computed(store):
    folder, fingerprint, compute, inputs, outputs = store
    assert sorted(path.name for path in folder.iterdir()) == ["largest.bin", "manifest.json", "output.bin", "place.bin"]
    assert equal(teacher_outputs.load_or_compute(folder, fingerprint, never, []), outputs)
    live = compute({"input": inputs})
    assert torch.allclose(outputs["output"], live["output"], atol=1e-6)
    assert torch.equal(outputs["place"], live["place"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_every_dtype_and_shape_comes_back(dtype, tmp_path):
    torch.manual_seed(0)
    values = (torch.randn(50, 2, 3) * 3).to(dtype)
    outputs = teacher_outputs.load_or_compute(
        tmp_path, {}, lambda batch: {"a": batch["input"], "b": batch["input"][:, 0, 0]}, batches(values, 7)
    )
    assert torch.equal(outputs["a"], values)
    assert torch.equal(outputs["b"], values[:, 0, 0])


def test_the_files_do_not_depend_on_the_batches(store, tmp_path):
    """A linear layer may round differently in batches of other sizes, so the outputs here are the inputs."""
    _, fingerprint, _, inputs, _ = store
    for name, size in (("large", 1000), ("small", 7)):
        teacher_outputs.write(
            tmp_path / name, fingerprint, lambda batch: {"output": batch["input"]}, batches(inputs, size)
        )
    large, small = ((tmp_path / name / "output.bin").read_bytes() for name in ("large", "small"))
    assert hashlib.sha256(large).digest() == hashlib.sha256(small).digest()


def test_a_training_cannot_change_the_file(store):
    folder, fingerprint, _, _, outputs = store
    before = (folder / "output.bin").read_bytes()
    outputs["output"].add_(1.0)
    assert (folder / "output.bin").read_bytes() == before
    assert not equal(teacher_outputs.read(folder, fingerprint), outputs)


@pytest.mark.parametrize("name", ["teacher", "inputs and their order", "dtype"])
def test_outputs_of_something_else_are_rejected(store, name):
    folder, fingerprint, compute, inputs, _ = store
    with pytest.raises(CacheError, match=f"made with another {name}; delete"):
        teacher_outputs.load_or_compute(folder, {**fingerprint, name: "z"}, compute, batches(inputs))


def damage_flip(folder):
    path = folder / "output.bin"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def damage_swap(folder):
    """Exchange two blocks of rows; the size stays the same."""
    path = folder / "output.bin"
    content = path.read_bytes()
    path.write_bytes(content[1200:2400] + content[:1200] + content[2400:])


def damage_truncate(folder):
    path = folder / "output.bin"
    path.write_bytes(path.read_bytes()[:-1])


def damage_missing(folder):
    (folder / "output.bin").unlink()


@pytest.mark.parametrize("damage", [damage_flip, damage_swap, damage_truncate, damage_missing])
def test_a_damaged_file_is_rejected(store, damage):
    folder, fingerprint, compute, inputs, _ = store
    damage(folder)
    with pytest.raises(CacheError, match=r"output\.bin are missing or corrupt; delete"):
        teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))


MANIFESTS = ["", "[]", '{"fingerprint": {}}', '{"fingerprint": 3, "outputs": {}}']


@pytest.mark.parametrize(
    "text", [*MANIFESTS, '{"fingerprint": {}, "outputs": {"output": {"shape": [2], "dtype": "x"}}}']
)
def test_a_damaged_manifest_is_rejected(store, text):
    folder, fingerprint, compute, inputs, _ = store
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CacheError, match="is not a manifest of teacher outputs"):
        teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))


def test_without_a_manifest_everything_is_computed_again(store):
    """A kill between the outputs and the manifest leaves this."""
    folder, fingerprint, compute, inputs, outputs = store
    (folder / "manifest.json").unlink()
    assert equal(teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs)), outputs)
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"] == fingerprint


def test_a_teacher_that_fails_midway_leaves_no_store(tmp_path):
    def compute(batch):
        if batch["input"][0, 0] > 0:
            raise RuntimeError("out of memory")
        return {"output": batch["input"]}

    with pytest.raises(RuntimeError, match="out of memory"):
        teacher_outputs.load_or_compute(tmp_path / "store", {}, compute, batches(torch.tensor([[0.0], [1.0]]), 1))
    assert list((tmp_path / "store").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*file/store"):
        teacher_outputs.write(tmp_path / "file" / "store", {}, lambda batch: {"output": batch["input"]}, [])


def test_the_fingerprint_of_weights_sees_every_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    seen = {teacher_outputs.weights_fingerprint(model)}
    model[0].bias.data[0] += 1e-6
    seen.add(teacher_outputs.weights_fingerprint(model))
    model[1].running_mean += 1
    seen.add(teacher_outputs.weights_fingerprint(model))
    seen.add(teacher_outputs.weights_fingerprint(model.double()))
    seen.add(teacher_outputs.weights_fingerprint(nn.Sequential(*model, nn.ReLU())))
    assert len(seen) == 5
