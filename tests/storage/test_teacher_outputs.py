"""The teacher's outputs on disk are those of the live teacher, or are refused."""

import hashlib
import json

import pytest
import torch
from torch import nn

import kdzoo
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import LogitKD
from kdzoo.errors import CacheError
from kdzoo.models import MLP
from kdzoo.run import teachers
from kdzoo.storage import teacher_outputs


def batches(inputs, size=1000):
    return [{"input": part} for part in inputs.split(size)]


def asked(teacher):
    """Return what is kept of a teacher: its output, and the largest one with its place."""

    def ask(batch):
        output = teacher(batch["input"])
        return {"output": output, **dict(zip(("most", "where"), output.max(1), strict=True))}

    return ask


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def kept(tmp_path):
    torch.manual_seed(0)
    teacher, inputs = nn.Linear(4, 3).eval(), torch.randn(2500, 4)
    fingerprint = {"teacher": "a", "inputs and their order": "b", "dtype": "c"}
    ask = asked(teacher)
    answers = teacher_outputs.answers(tmp_path, fingerprint, ask, batches(inputs))
    return tmp_path, fingerprint, ask, inputs, answers


def test_the_second_time_nothing_is_computed(kept):
    folder, fingerprint, ask, inputs, answers = kept
    assert sorted(path.name for path in folder.glob("shard*")) == [f"shard-0000{i}.safetensors" for i in range(3)]
    assert equal(teacher_outputs.answers(folder, fingerprint, None, []), answers)
    live = ask({"input": inputs})
    assert torch.allclose(answers["output"], live["output"], atol=1e-6)
    assert torch.equal(answers["where"], live["where"])


def test_the_files_do_not_depend_on_who_computes(kept, tmp_path):
    """Two halves, computed apart in the same blocks, make the very same shards."""
    folder, fingerprint, ask, inputs, _ = kept
    halves = [teacher_outputs.compute(ask, batches(part)) for part in (inputs[:2000], inputs[2000:])]
    teacher_outputs.write(tmp_path / "other", fingerprint, teacher_outputs.joined(halves))
    for path in folder.glob("shard*"):
        twin = tmp_path / "other" / path.name
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(twin.read_bytes()).digest()


@pytest.mark.parametrize("name", ["teacher", "inputs and their order", "dtype"])
def test_a_cache_of_something_else_is_refused(kept, name):
    folder, fingerprint, ask, inputs, _ = kept
    with pytest.raises(CacheError, match=f"made with another {name}; delete"):
        teacher_outputs.answers(folder, {**fingerprint, name: "z"}, ask, batches(inputs))


def damage_flip(folder):
    path = folder / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def damage_swap(folder):
    first, second = (folder / f"shard-0000{i}.safetensors" for i in range(2))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def damage_truncate(folder):
    path = folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def damage_missing(folder):
    (folder / "shard-00002.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_flip, damage_swap, damage_truncate, damage_missing])
def test_a_damaged_shard_is_refused(kept, damage):
    folder, fingerprint, ask, inputs, _ = kept
    damage(folder)
    with pytest.raises(CacheError, match=r"shard-0000\d\.safetensors is missing or corrupt; delete"):
        teacher_outputs.answers(folder, fingerprint, ask, batches(inputs))


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": {}}', '{"fingerprint": 3, "shards": []}'])
def test_a_damaged_manifest_is_refused(kept, text):
    folder, fingerprint, ask, inputs, _ = kept
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CacheError, match="is not a teacher-cache manifest"):
        teacher_outputs.answers(folder, fingerprint, ask, batches(inputs))


def test_without_a_manifest_it_is_computed_again(kept):
    """What a kill between the shards and the manifest leaves."""
    folder, fingerprint, ask, inputs, answers = kept
    (folder / "manifest.json").unlink()
    assert equal(teacher_outputs.answers(folder, fingerprint, ask, batches(inputs)), answers)
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"] == fingerprint


# ---------------------------------------------------------------- within a run: ten ways to be stale

PLAIN = {"data.augment": None, "student.dropout": 0.0, "teacher_cache": True}


def remembered(folder, changes=None, alter=None):
    """Return the distiller with its cache, and the number of cache folders there are."""
    subject = Subject(
        kdzoo.compose("distiller=logit_kd", f"cache_dir={folder}"), folder, changes={**PLAIN, **(changes or {})}
    )
    data = subject.data()
    distiller = subject.distiller(data)
    if alter is not None:
        alter(distiller, data)
    teachers.cache_teacher_outputs(subject.job, distiller, data)
    return distiller, data, len(list(folder.glob("teacher_outputs/*")))


def first_weight(distiller, data):
    next(distiller.teacher.parameters()).data.view(-1)[0] += 1e-3


def last_bias(distiller, data):
    list(distiller.teacher.parameters())[-1].data[-1].neg_()


def a_buffer(distiller, data):
    distiller.teacher.register_buffer("scale", torch.ones(1))


def another_activation(distiller, data):
    twin = MLP(in_shape=[1, 8, 8], num_classes=10, hidden=[16, 16], activation="tanh")
    twin.load_state_dict(
        {k: v for k, v in distiller.teacher.state_dict().items() if k in twin.state_dict()}, strict=False
    )
    distiller.teacher = twin.eval()


def double(distiller, data):
    distiller.teacher.double()
    for split in (data.splits.train, data.splits.val):
        split.inputs.data = split.inputs.double()


def one_pixel(distiller, data):
    data.splits.train.inputs[3, 0, 4, 4] += 1e-3


def another_order(distiller, data):
    data.splits.train.inputs.data = data.splits.train.inputs.flip(0)


def another_scale(distiller, data):
    data.splits.train.inputs.mul_(2)


STALE = [
    (None, first_weight),
    (None, last_bias),
    (None, a_buffer),
    (None, another_activation),
    (None, double),
    (None, one_pixel),
    (None, another_order),
    (None, another_scale),
    ({"data.train_size": 43}, None),
    ({"teacher.hidden": [17, 16]}, None),
]


@pytest.mark.parametrize(("changes", "alter"), STALE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_what_is_stale_is_not_used(changes, alter, tmp_path):
    remembered(tmp_path)
    changed, data, folders = remembered(tmp_path, changes, alter)
    assert folders == 2
    with torch.no_grad():
        live = changed.teacher(data.splits.train.inputs)
    assert torch.allclose(changed.teacher_cache["train"]["output"], live, atol=1e-6)


def test_the_same_again_is_used(tmp_path):
    first, _, _ = remembered(tmp_path)
    second, _, folders = remembered(tmp_path)
    assert folders == 1
    assert first.teacher_cache.keys() == {"train", "val"}
    assert all(equal(first.teacher_cache[part], second.teacher_cache[part]) for part in first.teacher_cache)


class Louder(LogitKD):
    """Asks for something else than its base."""

    def teacher_outputs(self, batch):
        return {"output": 100 + self.teacher(batch["input"]), "most": self.teacher(batch["input"]).amax(1)}


def test_answers_to_another_question_are_not_used(tmp_path, monkeypatch):
    to_container, _, _ = remembered(tmp_path)
    monkeypatch.setattr(Subject, "distiller", lambda self, data: Louder(to_container.student, to_container.teacher))
    louder, _, folders = remembered(tmp_path)
    assert folders == 2
    assert louder.teacher_cache["train"].keys() == louder.teacher_cache["val"].keys() == {"output", "most"}
    assert torch.allclose(louder.teacher_cache["train"]["output"], 100 + to_container.teacher_cache["train"]["output"])
    monkeypatch.setattr(Louder, "question", {"temperature": 2.0})
    assert remembered(tmp_path)[2] == 3


@pytest.mark.parametrize("changes", [{"data.augment": {"shift": 1}}, {"teacher_cache": False}])
def test_no_cache_where_it_would_be_wrong_or_is_unwanted(changes, tmp_path):
    distiller, _, folders = remembered(tmp_path, changes)
    assert not distiller.teacher_cache
    assert folders == 0


def test_a_method_that_reads_hidden_layers_has_no_cache(tmp_path):
    subject = Subject(kdzoo.compose("distiller=feature_kd", f"cache_dir={tmp_path}"), tmp_path, changes=PLAIN)
    data = subject.data()
    distiller = subject.distiller(data)
    teachers.cache_teacher_outputs(subject.job, distiller, data)
    assert not distiller.teacher_cache


def test_training_from_the_cache_is_training_from_the_teacher(tmp_path, monkeypatch):
    subject = Subject(kdzoo.compose("distiller=logit_kd", f"cache_dir={tmp_path}"), tmp_path, changes=PLAIN)
    live = subject.train("live").history.terms
    build = Subject.distiller

    def with_cache(self, data):
        distiller = build(self, data)
        teachers.cache_teacher_outputs(self.job, distiller, data)
        return distiller

    monkeypatch.setattr(Subject, "distiller", with_cache)
    cached = subject.train("cached")
    assert cached.distiller.teacher_cache
    for name, values in live.items():
        assert cached.history.terms[name] == pytest.approx(values, abs=1e-6)
