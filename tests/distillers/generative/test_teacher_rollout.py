"""Rollouts of the teacher by itself or by a fast copy, and the distiller with such a copy."""

import copy

import pytest
import torch

import kdzoo
from kdzoo.contracts import CHECKS
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import SemiAuxiliary
from kdzoo.distillers.generative import teacher_rollout
from kdzoo.distillers.generative.teacher_rollout import TeacherRollout
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.paired import rollout_teacher
from kdzoo.models import ConvHVAE
from tests.distillers.generative.cases import noise_batch, normal_chain


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def bfloat16(request, monkeypatch):
    """Whether the device is faster with bfloat16."""
    monkeypatch.setattr(teacher_rollout, "has_fast_bfloat16", lambda device: request.param)
    return request.param


def models():
    torch.manual_seed(0)
    teacher, student = (ConvHVAE(in_shape=(3, 32, 32), width=width) for width in (4, 2))
    with torch.no_grad():
        for _ in range(20):
            teacher.rollout(teacher.noise(8))  # gives the norms their statistics
    return student, teacher


def test_without_a_copy_the_teacher_itself_is_rolled_out():
    teacher = normal_chain()
    noise = teacher.noise(3)
    rollout = TeacherRollout(teacher)
    assert rollout.model is teacher
    trace, expected = rollout(noise), rollout_teacher(teacher, noise)
    assert all(torch.equal(trace.values[name], value) for name, value in expected.values.items())
    assert not trace.distributions["y"].mean.requires_grad
    assert rollout.notes == {}


def test_the_note_says_what_the_copy_is(bfloat16):
    notes = {}
    rollout = TeacherRollout(normal_chain(), fast=True, notes=notes)
    assert notes == {}
    rollout(normal_chain().noise(3))
    assert notes == {"fast_teacher": f"no norms to fold, torch.{'bfloat16' if bfloat16 else 'float32'} on cpu"}


def test_a_value_that_is_not_a_bool_raises():
    with pytest.raises(ConfigError, match=r"^fast_teacher must be true or false, got 'yes'$"):
        TeacherRollout(normal_chain(), fast="yes")


# ---------------------------------------------------------------- the distiller with a copy


def gradient(distiller, batch):
    distiller.student.zero_grad()
    sum(value.mean() for value in distiller.losses(batch).values()).backward()
    return torch.cat([p.grad.flatten() for p in distiller.trainable()])


def test_losses_and_gradients_are_close_to_those_with_the_teacher_itself(bfloat16):
    student, teacher = models()
    batch = noise_batch(teacher.noise(8))
    exact = SemiAuxiliary(copy.deepcopy(student), copy.deepcopy(teacher))
    fast = SemiAuxiliary(student, teacher, fast_teacher=True)
    expected, terms = exact.losses(batch), fast.losses(batch)
    for name, value in expected.items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value, rtol=0.1 if bfloat16 else 1e-3, atol=1e-2 if bfloat16 else 1e-4)
    cosine = torch.nn.functional.cosine_similarity(gradient(exact, batch), gradient(fast, batch), dim=0)
    assert float(cosine) > (0.999 if bfloat16 else 0.999999)
    assert fast.notes["fast_teacher"] == f"norms folded, torch.{'bfloat16' if bfloat16 else 'float32'} on cpu"


def test_the_copy_is_not_in_checkpoints_and_leaves_the_teacher_unchanged(bfloat16):
    del bfloat16
    student, teacher = models()
    before = copy.deepcopy(teacher.state_dict())
    fast = SemiAuxiliary(student, teacher, fast_teacher=True)
    keys, parameters, modules = fast.state_dict().keys(), len(list(fast.parameters())), len(list(fast.modules()))
    fast.losses({"input": torch.zeros(3, 0)})
    assert fast.teacher_rollout.model is not teacher
    assert fast.state_dict().keys() == keys
    assert (len(list(fast.parameters())), len(list(fast.modules()))) == (parameters, modules)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_every_training_copies_the_teacher_as_it_is_then(bfloat16):
    del bfloat16
    student, teacher = models()
    fast = SemiAuxiliary(student, teacher, fast_teacher=True, calibrated=False)
    noise = teacher.noise(2)
    batch = noise_batch(noise)
    fast.dry_run(batch)
    first_copy = fast.teacher_rollout.model
    assert fast.teacher_rollout.model is first_copy
    for parameter in teacher.targets()["image"].conditional.net.head.parameters():
        parameter.data.zero_()
    fast.dry_run(batch)
    assert not fast.teacher_rollout.model.rollout(noise).raw["image"].any()
    assert first_copy.rollout(noise).raw["image"].any()


def test_the_copy_has_the_dtype_of_the_teacher(bfloat16):
    del bfloat16
    fast = SemiAuxiliary(*models(), fast_teacher=True)
    fast.losses({"input": torch.zeros(2, 0)})
    fast.double()
    assert {value.dtype for value in fast.losses({"input": torch.zeros(2, 0)}).values()} == {torch.float64}


@pytest.mark.parametrize("check", ["resume", "determinism", "teacher", "checkpoint"])
def test_the_contract_checks_pass_with_a_copy(check, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_rollout, "has_fast_bfloat16", lambda device: True)
    subject = Subject(kdzoo.compose("distiller=semi_auxiliary"), tmp_path)
    CHECKS[check](subject.with_changes({"distiller.fast_teacher": True}))
