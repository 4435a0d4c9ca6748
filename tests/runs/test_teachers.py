"""Where a run's teacher comes from, and when its stored outputs are used again."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import kdzoo
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import LogitKD
from kdzoo.models import MLP
from kdzoo.runs import teachers


def all_rows(rows):
    return rows[torch.arange(len(rows))]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(all_rows(one[name]), all_rows(other[name])) for name in one)


PLAIN = {"data.augment": None, "student.dropout": 0.0, "teacher_cache": True}


def cached(folder, changes=None, alter=None):
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
    cached(tmp_path)
    changed, data, folders = cached(tmp_path, changes, alter)
    assert folders == 2
    with torch.no_grad():
        live = changed.teacher(data.splits.train.inputs)
    assert torch.allclose(all_rows(changed.frozen_teacher.cache["train"]["output"]), live, atol=1e-6)


def test_each_split_has_the_outputs_of_its_own_samples(tmp_path):
    distiller, data, _ = cached(tmp_path)
    for name in ("train", "val"):
        with torch.no_grad():
            live = distiller.teacher(getattr(data.splits, name).inputs)
        assert torch.allclose(all_rows(distiller.frozen_teacher.cache[name]["output"]), live, atol=1e-6)


def test_the_same_again_is_used(tmp_path):
    first, _, _ = cached(tmp_path)
    second, _, folders = cached(tmp_path)
    assert folders == 1
    assert first.frozen_teacher.cache.keys() == {"train", "val"}
    assert all(
        equal(first.frozen_teacher.cache[split], second.frozen_teacher.cache[split])
        for split in first.frozen_teacher.cache
    )


class Scaled(LogitKD):
    """Computes other outputs than its base class."""

    def teacher_outputs(self, batch):
        return {"output": 100 + self.teacher(batch["input"]), "largest": self.teacher(batch["input"]).amax(1)}


def test_outputs_of_another_computation_are_not_used(tmp_path, monkeypatch):
    plain, _, _ = cached(tmp_path)
    scaled = Scaled(plain.student, plain.teacher)
    monkeypatch.setattr(Subject, "distiller", lambda self, data: scaled)
    _, _, folders = cached(tmp_path)
    assert folders == 2
    of_scaled, of_plain = scaled.frozen_teacher.cache, plain.frozen_teacher.cache
    assert of_scaled["train"].keys() == of_scaled["val"].keys() == {"output", "largest"}
    assert torch.allclose(all_rows(of_scaled["train"]["output"]), 100 + all_rows(of_plain["train"]["output"]))
    scaled.frozen_teacher.cache_key = {"temperature": 2.0}
    assert cached(tmp_path)[2] == 3


def documented(batch):
    """Return the input.

    Comments and docstrings do not count.
    """
    # a comment
    return {"output": batch["input"]}


def test_only_code_counts():
    """The same function, without its comments and in another layout."""
    namespace = {"__name__": __name__}
    bare = "def documented(batch):\n    return {\n        'output': batch['input'],\n    }\n"
    changed = bare.replace("'input'", "'target'")

    def code_of(source):
        path = Path(tempfile.mkdtemp()) / "source.py"
        path.write_text(source)
        exec(compile(source, str(path), "exec"), namespace)
        return teachers._code_of(namespace["documented"])

    assert code_of(bare) == teachers._code_of(documented)
    assert code_of(changed) != teachers._code_of(documented)


@pytest.mark.parametrize("changes", [{"data.augment": {"shift": 1}}, {"teacher_cache": False}])
def test_no_cache_where_it_would_be_wrong_or_is_unwanted(changes, tmp_path):
    distiller, _, folders = cached(tmp_path, changes)
    assert not distiller.frozen_teacher.cache
    assert folders == 0


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
    assert cached.distiller.frozen_teacher.cache
    for name, values in live.items():
        assert cached.history.terms[name] == pytest.approx(values, abs=1e-6)


class Rule(nn.Module):
    """A teacher without parameters."""

    def forward(self, inputs):
        return torch.stack([inputs.flatten(1).sum(1) * k for k in range(10)], 1)


def test_a_teacher_without_parameters_needs_no_training_and_can_be_cached(tmp_path):
    cfg = kdzoo.compose("distiller=logit_kd", f"cache_dir={tmp_path}")
    cfg.teacher = {"_target_": f"{__name__}.Rule"}
    subject = Subject(cfg, tmp_path, changes=PLAIN, allow={f"{__name__}.Rule"})
    data = subject.data()
    distiller = subject.distiller(data)
    assert teachers.brings_weights(subject.job, distiller.teacher)
    teachers.cache_teacher_outputs(subject.job, distiller, data)
    expected = Rule()(data.splits.train.inputs)
    assert torch.allclose(all_rows(distiller.frozen_teacher.cache["train"]["output"]), expected)
    assert subject.train("without parameters").checkpoint["global_step"] > 0
