"""Decoupled distillation against the definitions of Zhao et al. 2022 in float64 NumPy."""

import numpy as np
import pytest
import torch

from kdzoo.distillers import DKD, LogitKD
from kdzoo.errors import ConfigError
from kdzoo.models import Ensemble
from tests.distillers.logits.conftest import (
    TEMPERATURE,
    assert_gradient_reaches_student_only,
    assert_terms,
    ensemble_case,
    make_case,
)
from tests.reference import distillers as reference


def test_terms_equal_the_reference(case):
    target, nontarget = reference.decoupled(*case.arrays, case.target, case.valid, TEMPERATURE)
    expected = {"target": target, "nontarget": nontarget, "hard": case.expected_hard()}
    assert_terms(DKD(case.student, case.teacher, temperature=TEMPERATURE).losses(case.batch), expected)


def test_gradient_reaches_valid_positions_of_the_student_only():
    case = make_case("sequences, mask, some labels")
    assert_gradient_reaches_student_only(DKD(case.student, case.teacher), case.batch)


def test_terms_recombine_to_the_softened_divergence():
    """Zhao et al. 2022, equation 6: KL = TCKD + (1 - p_y) NCKD."""
    case = make_case("images")
    terms = DKD(case.student, case.teacher, temperature=TEMPERATURE).losses(case.batch)
    probabilities = (case.teacher_logits.double() / TEMPERATURE).softmax(-1)
    p = probabilities.gather(-1, case.batch["target"].unsqueeze(-1)).squeeze(-1)
    soft = LogitKD(case.student, case.teacher, temperature=TEMPERATURE).losses(case.batch)["soft"]
    torch.testing.assert_close(terms["target"] + (1 - p) * terms["nontarget"], soft, rtol=1e-9, atol=1e-12)


def test_a_missing_label_is_replaced_by_the_most_likely_class_of_the_teacher():
    unlabelled, labelled = make_case("images, no label"), make_case("images")
    labelled.batch["target"] = labelled.teacher_logits.argmax(-1)
    terms, expected = (DKD(each.student, each.teacher).losses(each.batch) for each in (unlabelled, labelled))
    assert len(terms["hard"]) == 0
    for name in ("target", "nontarget"):
        assert torch.equal(terms[name], expected[name])


def test_an_ensemble_as_teacher_has_the_mean_of_its_probabilities():
    student, members, batch = ensemble_case()
    distiller = DKD(student, Ensemble(members), temperature=TEMPERATURE)
    terms = distiller.losses(batch)
    with torch.no_grad():
        s = student(batch["input"]).double().numpy()
        t = reference.mean_of_probabilities([member(batch["input"]).double().numpy() for member in members])
    y = batch["target"].numpy()
    target, nontarget = reference.decoupled(s, t, y, np.ones(6, bool), TEMPERATURE)
    expected = {"target": target, "nontarget": nontarget, "hard": reference.hard(s, y, y != reference.IGNORE)}
    assert_terms(terms, expected, rtol=1e-5)
    sum(value.sum() for value in terms.values()).backward()
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature):
    case = make_case("images")
    with pytest.raises(ConfigError, match="temperature must be finite and > 0, got"):
        DKD(case.student, case.teacher, temperature=temperature)
