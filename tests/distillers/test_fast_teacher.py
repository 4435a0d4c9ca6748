"""The option of graphical models' distiller to roll out a fast copy of the teacher."""

import copy

import pytest
import torch

import kdzoo
from kdzoo.contracts import CHECKS
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import SemiAuxiliary
from kdzoo.distillers.generative import teacher_rollout
from kdzoo.distillers.generative.batch_noise import pack_noise
from kdzoo.models import ConvHVAE


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def lowered(request, monkeypatch):
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


def gradient(distiller, batch):
    distiller.student.zero_grad()
    sum(value.mean() for value in distiller.losses(batch).values()).backward()
    return torch.cat([p.grad.flatten() for p in distiller.trainable()])


def test_losses_and_gradients_are_about_those_of_the_teacher(lowered):
    student, teacher = models()
    batch = {"input": torch.zeros(8, 0), **pack_noise(teacher.noise(8))}
    to_container = SemiAuxiliary(copy.deepcopy(student), copy.deepcopy(teacher))
    fast = SemiAuxiliary(student, teacher, fast_teacher=True)
    expected, found = to_container.losses(batch), fast.losses(batch)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, rtol=0.1 if lowered else 1e-3, atol=1e-2 if lowered else 1e-4)
    cosine = torch.nn.functional.cosine_similarity(gradient(to_container, batch), gradient(fast, batch), dim=0)
    assert float(cosine) > (0.999 if lowered else 0.999999)
    assert fast.notes["fast_teacher"] == f"norms folded, torch.{'bfloat16' if lowered else 'float32'} on cpu"


def test_the_copy_is_no_part_of_the_distiller(lowered):
    del lowered
    student, teacher = models()
    before = copy.deepcopy(teacher.state_dict())
    fast = SemiAuxiliary(student, teacher, fast_teacher=True)
    keys, parameters, modules = fast.state_dict().keys(), len(list(fast.parameters())), len(list(fast.modules()))
    fast.losses({"input": torch.zeros(3, 0)})
    assert fast.teacher_rollout.model is not teacher
    assert fast.state_dict().keys() == keys
    assert (len(list(fast.parameters())), len(list(fast.modules()))) == (parameters, modules)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_fit_begins_with_the_teacher_as_it_is_then(lowered):
    del lowered
    student, teacher = models()
    fast = SemiAuxiliary(student, teacher, fast_teacher=True, calibrated=False)
    noise = teacher.noise(2)
    batch = {"input": torch.zeros(2, 0), **pack_noise(noise)}
    fast.dry_run(batch)
    copied = fast.teacher_rollout.model
    assert fast.teacher_rollout.model is copied
    for parameter in teacher.targets()["image"].conditional.net.head.parameters():
        parameter.data.zero_()
    fast.dry_run(batch)
    assert not fast.teacher_rollout.model.rollout(noise).raw["image"].any()
    assert copied.rollout(noise).raw["image"].any()


def test_the_copy_follows_the_teachers_dtype(lowered):
    del lowered
    fast = SemiAuxiliary(*models(), fast_teacher=True)
    fast.losses({"input": torch.zeros(2, 0)})
    fast.double()
    assert {value.dtype for value in fast.losses({"input": torch.zeros(2, 0)}).values()} == {torch.float64}


@pytest.mark.parametrize("check", ["resume", "determinism", "teacher", "checkpoint"])
def test_contracts_are_kept(check, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_rollout, "has_fast_bfloat16", lambda device: True)
    subject = Subject(kdzoo.compose("distiller=semi_auxiliary"), tmp_path)
    CHECKS[check](subject.with_changes({"distiller.fast_teacher": True}))
