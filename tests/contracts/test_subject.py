"""The distiller under test: small, built afresh on every call, and with the settings that a check asks for."""

import torch
from torch import nn

from kdzoo import MethodInfo
from kdzoo.contracts.subject import SHORT, SMALL_DATA
from kdzoo.distillers import LogitKD


def test_packaged_models_and_data_are_made_small(subject_of):
    settings = subject_of("logit_kd").settings
    assert settings.student.hidden == settings.teacher.hidden == [16, 16]
    assert {key: settings.data[key] for key in SMALL_DATA} == SMALL_DATA
    assert settings.trainer.max_epochs == SHORT["trainer.max_epochs"]


def test_changes_come_last(subject_of):
    subject = subject_of("logit_kd", **{"student.hidden": [3]})
    changed = subject.with_changes({"trainer.max_epochs": 5, "distiller.temperature": 2.0})
    assert (changed.settings.student.hidden, changed.settings.trainer.max_epochs) == ([3], 5)
    assert changed.settings.distiller.temperature == 2.0
    assert subject.settings.trainer.max_epochs == 2


class NeedsLabels(LogitKD):
    """Declares settings that its checks need."""

    info = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1}, contract_settings={"data.labels_per_class": None, "student.hidden": [5]}
    )


def test_a_method_may_declare_settings_for_its_checks(subject_of):
    settings = subject_of(NeedsLabels).settings
    assert settings.data.labels_per_class is None
    assert settings.student.hidden == [5]


def test_every_call_builds_equal_models_that_are_separate(subject_of):
    subject = subject_of("logit_kd")
    (first, first_batch), (second, second_batch) = subject.prepared(), subject.prepared()
    assert torch.equal(first_batch["input"], second_batch["input"])
    for name, value in first.student.state_dict().items():
        assert torch.equal(value, second.student.state_dict()[name])
        assert value.data_ptr() != second.student.state_dict()[name].data_ptr()


def test_dropout_can_be_switched_off(subject_of):
    def rates(subject):
        return {m.p for m in subject.distiller(subject.data()).modules() if isinstance(m, nn.Dropout)}

    subject = subject_of("logit_kd")
    assert 0.2 in rates(subject)
    assert rates(subject.with_changes({}, dropout=False)) == {0.0}


def test_the_data_of_one_call_do_not_change_those_of_the_next(subject_of):
    subject = subject_of("logit_kd")
    subject.data().train_sampler.set_position(2)
    assert subject.data().train_sampler.start == 0


def test_a_training_prints_nothing(subject_of, capsys):
    trained = subject_of("logit_kd", **{"trainer.max_epochs": 1}).train("one")
    assert trained.checkpoint["global_step"] == 3
    assert capsys.readouterr().err == ""
