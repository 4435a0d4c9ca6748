"""Preparation of a run: what the dry run rejects, and that it leaves no trace and copies no model."""

import copy

import pytest
import torch
from torch import nn

import kdzoo
from kdzoo import kinds
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP
from kdzoo.runs import preparation, teachers
from kdzoo.runs.job import Job, for_seed


@pytest.fixture
def job_of(settings, tmp_path):
    """Return a function that makes the job of a small run."""

    def make(*overrides, allow=()):
        cfg = settings("data.augment=null", *overrides)
        return Job(for_seed(cfg, 0), 0, tmp_path, {*kdzoo.config.packaged_targets(), *allow})

    return make


def test_no_model_is_copied_and_the_teacher_can_be_trained(job_of, monkeypatch):
    job, trained = job_of(), []
    plain = copy.deepcopy

    def guarded(value, memo=None):
        assert not isinstance(value, nn.Module), f"{type(value).__name__} is copied"
        return plain(value, memo)

    def train(job, kind, model, sizes):
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert all(module.training for module in model.modules())
        trained.append(model)

    data = job.data()
    monkeypatch.setattr(copy, "deepcopy", guarded)
    monkeypatch.setattr(teachers, "train", train)
    models, is_cacheable = preparation.prepare_models(job, LogitKD, data)
    assert trained == [models["teacher"]]
    assert is_cacheable


def test_the_models_of_the_dry_run_are_gone_before_the_teacher_is_trained(job_of, monkeypatch):
    """At most one teacher and one student exist at any time, since two might not fit into memory."""
    job = job_of()
    data = job.data()
    alive = {"now": 0, "most": 0}

    class Counted(MLP):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            alive["now"] += 1
            alive["most"] = max(alive.values())

        def __del__(self):
            alive["now"] -= 1

    monkeypatch.setattr("kdzoo.models.MLP", Counted)
    monkeypatch.setattr(teachers, "train", lambda *arguments: None)
    models, _ = preparation.prepare_models(job, LogitKD, data)
    assert isinstance(models["student"], Counted)
    assert alive["most"] <= 3  # the new teacher is built before the variable lets go of the old one
    assert alive["now"] == 2


def test_the_dry_run_does_not_change_the_weights_that_a_seed_gives(job_of, monkeypatch):
    job = job_of()
    data = job.data()
    monkeypatch.setattr(teachers, "train", lambda *arguments: None)
    models, _ = preparation.prepare_models(job, LogitKD, data)
    for role in ("teacher", "student"):
        expected = job.model(role, data.sizes).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in models[role].state_dict().items())


def test_a_method_without_a_teacher_builds_none(job_of):
    job = job_of("distiller=supervised")
    models, is_cacheable = preparation.prepare_models(job, kdzoo.distillers.Supervised, job.data())
    assert models.keys() == {"student"}
    assert not is_cacheable


def test_modes_and_gradients_come_back_as_they_were():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model[0].weight.requires_grad_(False)
    model[1].eval()
    with preparation.unfrozen_afterwards(model):
        model.requires_grad_(True).eval()
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True]
    assert [module.training for module in model.modules()] == [True, True, False]
    with preparation.unfrozen_afterwards(None):
        pass


def test_a_kind_that_the_method_does_not_support_is_refused(job_of):
    job = job_of()
    with pytest.raises(ConfigError, match=r"OTPFA.*classifier"):
        preparation.prepare_models(job, kdzoo.distillers.OTPFA, job.data())


def test_a_teacher_that_cannot_be_trained_needs_weights():
    with pytest.raises(ConfigError, match=r"^teacher Linear has no weights, and a model of kind untrainable is not"):
        preparation.check_trainable(type("Kind", (), {"name": "untrainable", "teacher_free": None})(), nn.Linear(1, 1))


def test_a_control_is_trained_only_by_another_method(job_of):
    job, kind = job_of(), kinds.get("classifier")
    assert preparation.has_teacher_free_control(job, kind)
    assert not preparation.has_teacher_free_control(job_of("distiller=supervised"), kind)


def test_sizes_that_are_found_in_the_run_are_written_into_the_configuration():
    class Grows(nn.Module):
        learned_sizes = {"states": 7}

    assert preparation.with_learned_sizes({"states": None, "seed": 1}, Grows()) == {"states": 7, "seed": 1}
    assert preparation.with_learned_sizes({"seed": 1}, nn.Linear(1, 1)) == {"seed": 1}
