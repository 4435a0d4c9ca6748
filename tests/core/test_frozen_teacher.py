"""The teacher inside a distiller: frozen, absent from state dicts, and read from a cache where there is one."""

import copy

import pytest
import torch
from torch import nn

from kdzoo.core.frozen_teacher import FrozenTeacher
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError


def models():
    torch.manual_seed(0)
    return nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))


def test_the_teacher_is_frozen_and_in_no_state():
    distiller = LogitKD(*models())
    distiller.train()
    assert distiller.student.training
    assert not any(module.training for module in distiller.teacher.modules())
    assert not any(parameter.requires_grad for parameter in distiller.teacher.parameters())
    state = distiller.state_dict()
    assert set(state) == {"student.weight", "student.bias"}
    distiller.load_state_dict(state, strict=True)
    wrapped = nn.ModuleDict({"inner": distiller})
    assert set(wrapped.state_dict()) == {"inner.student.weight", "inner.student.bias"}
    wrapped.load_state_dict(wrapped.state_dict(), strict=True)
    before = copy.deepcopy(distiller.teacher.state_dict())
    distiller.load_state_dict({**state, **{f"teacher.{key}": value + 1 for key, value in before.items()}})
    assert all(torch.equal(value, before[key]) for key, value in distiller.teacher.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: nn.Sequential(nn.Flatten(), model)])
def test_student_and_teacher_must_not_share_parameters(wrap):
    model = nn.Linear(4, 3)
    with pytest.raises(ConfigError, match=r"^teacher and student share parameters; give the student a copy"):
        LogitKD(model, wrap(model))


def frozen(teacher):
    """Return the teacher in its wrapper, and how often it was computed."""
    calls = []

    def compute(batch):
        calls.append(len(batch["input"]))
        return {"output": teacher(batch["input"])}

    return FrozenTeacher(teacher, nn.Linear(4, 3), compute), calls


def test_outputs_have_no_gradient():
    teacher = nn.Linear(4, 3)
    outputs, calls = frozen(teacher)
    inputs = torch.randn(2, 4, requires_grad=True)
    output = outputs.output({"input": inputs})
    assert not output.requires_grad
    assert torch.equal(output, teacher(inputs))
    assert (outputs.output_reads, calls) == (1, [2])


def test_the_cache_is_read_only_for_the_samples_of_its_split():
    outputs, calls = frozen(nn.Linear(4, 3))
    outputs.cache["train"] = {"output": torch.arange(5.0)[:, None], "largest": torch.arange(5.0)}
    batch = {"input": torch.randn(3, 4), "index": torch.tensor([4, 0, 4])}
    with outputs.using_cache("train"):
        read = outputs.outputs(batch)
    assert {name: value.flatten().tolist() for name, value in read.items()} == {
        "output": [4, 0, 4],
        "largest": [4, 0, 4],
    }
    assert calls == []
    with outputs.using_cache("val"):  # this split has no cache
        outputs.output(batch)
    outputs.output(batch)  # outside of a training, nobody knows which split a batch is from
    assert calls == [3, 3]


def test_calls_past_the_outputs_are_counted():
    teacher = nn.Linear(4, 3)
    outputs, _ = frozen(teacher)
    batch = {"input": torch.randn(2, 4)}
    with outputs.counting_calls(teacher):
        outputs.output(batch)
        assert (outputs.direct_calls, outputs.is_cacheable) == (0, True)
        teacher(batch["input"])
    assert (outputs.direct_calls, outputs.is_cacheable) == (1, False)
    teacher(batch["input"])  # no longer counted
    assert outputs.direct_calls == 1


def test_outputs_that_are_not_read_or_forbidden_cannot_be_cached():
    outputs, _ = frozen(nn.Linear(4, 3))
    assert not outputs.is_cacheable
    outputs.output({"input": torch.randn(2, 4)})
    outputs.cache_key = None
    assert not outputs.is_cacheable


def test_an_error_of_the_teacher_does_not_hide_later_direct_calls():
    teacher = nn.Linear(4, 3)
    outputs, _ = frozen(teacher)
    with outputs.counting_calls(teacher):
        with pytest.raises(RuntimeError):
            outputs.output({"input": torch.randn(2, 5)})
        teacher(torch.randn(2, 4))
    assert outputs.direct_calls == 1


def test_without_a_teacher_there_is_nothing_to_count():
    outputs = FrozenTeacher(None, nn.Linear(4, 3), lambda batch: {})
    with outputs.counting_calls(None):
        pass
    assert outputs.direct_calls == 0


def test_a_copy_of_the_distiller_keeps_the_teacher_out_of_its_state():
    distiller = copy.deepcopy(LogitKD(*models()))
    assert set(distiller.state_dict()) == {"student.weight", "student.bias"}
