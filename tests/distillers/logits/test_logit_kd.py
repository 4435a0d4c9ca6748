"""Logit distillation against the formulas of Hinton et al. 2015 in float64 NumPy, and a run on token sequences."""

import numpy as np
import pytest
import torch

import kdzoo
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP, Ensemble
from tests.distillers.logits.conftest import (
    CLASSES,
    TEMPERATURE,
    assert_gradient_reaches_student_only,
    assert_terms,
    ensemble_case,
    make_case,
)
from tests.reference import distillers as reference


def test_terms_equal_the_reference(case):
    expected = {"soft": reference.soft(*case.arrays, case.valid, TEMPERATURE), "hard": case.expected_hard()}
    assert_terms(LogitKD(case.student, case.teacher, temperature=TEMPERATURE).losses(case.batch), expected)


def test_gradient_reaches_valid_positions_of_the_student_only():
    case = make_case("sequences, mask, some labels")
    assert_gradient_reaches_student_only(LogitKD(case.student, case.teacher), case.batch)


def test_gradient_is_that_of_the_paper():
    """Hinton et al. 2015, equation 2 times T^2, and softmax minus one-hot for the labels."""
    case = make_case("images, some labels")
    distiller = LogitKD(case.student, case.teacher, temperature=TEMPERATURE)
    gradients = {
        name: torch.autograd.grad(value.sum(), distiller.student.logits, retain_graph=True)[0].numpy()
        for name, value in distiller.losses(case.batch).items()
    }
    pairs = zip(*case.arrays, strict=True)
    softened = [[reference.probabilities(row, TEMPERATURE) for row in pair] for pair in pairs]
    soft = [TEMPERATURE * (student - teacher) for student, teacher in softened]
    hard = [
        np.zeros(CLASSES) if label == reference.IGNORE else reference.probabilities(row) - np.eye(CLASSES)[label]
        for row, label in zip(case.arrays[0], case.target, strict=True)
    ]
    np.testing.assert_allclose(gradients["soft"], soft, atol=1e-6)
    np.testing.assert_allclose(gradients["hard"], hard, atol=1e-6)


def test_an_ensemble_as_teacher_has_the_mean_of_its_probabilities():
    student, members, batch = ensemble_case()
    distiller = LogitKD(student, Ensemble(members), temperature=TEMPERATURE)
    terms = distiller.losses(batch)
    with torch.no_grad():
        s = student(batch["input"]).double().numpy()
        t = reference.mean_of_probabilities([member(batch["input"]).double().numpy() for member in members])
    y = batch["target"].numpy()
    expected = {
        "soft": reference.soft(s, t, np.ones(6, bool), TEMPERATURE),
        "hard": reference.hard(s, y, y != reference.IGNORE),
    }
    assert_terms(terms, expected, rtol=1e-5)
    sum(value.sum() for value in terms.values()).backward()
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


def test_teacher_is_not_trained_and_not_switched_to_training():
    teacher = MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6], dropout=0.5)
    distiller = LogitKD(MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6]), teacher).train()
    batch = {"input": torch.randn(6, 4)}
    # Dropout would make the two outputs differ.
    assert torch.equal(distiller.frozen_teacher.output(batch), distiller.frozen_teacher.output(batch))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), True])
def test_a_temperature_out_of_range_is_refused(temperature):
    case = make_case("images")
    with pytest.raises(ConfigError, match="temperature must be finite and > 0, got"):
        LogitKD(case.student, case.teacher, temperature=temperature)


def test_a_run_on_token_sequences_is_measured_as_a_language_model(tmp_path):
    """The kind follows from the models and the data, not from the method."""
    cfg = kdzoo.compose(
        "distiller=logit_kd",
        "data=reber",
        "data.n_train=40",
        "data.batch_size=20",
        "data.n_val=20",
        "data.n_test=20",
        "teacher=rnn_lm",
        "teacher.hidden=8",
        "student=rnn_lm",
        "student.hidden=4",
        "seed=0",
        "trainer.max_epochs=1",
        "teacher_training.max_epochs=1",
        f"output_dir={tmp_path / 'run'}",
        f"cache_dir={tmp_path / 'cache'}",
    )
    report = kdzoo.run(cfg)
    assert report["kind"] == "language_model"
    for role in ("teacher", "student", "control"):
        metrics = report[role]["metrics"]
        # An untrained guess among the eight tokens would have perplexity 8; one epoch is not much better.
        assert 1.0 < metrics["perplexity"] < 16.0
        assert not metrics.keys() & {"calibration_error", "errors", "cross_entropy"}
