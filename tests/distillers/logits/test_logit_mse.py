"""Matching of centred logits against the formula of Hinton et al. 2015, section 2.1, and as a limit."""

import pytest
import torch

from kdzoo.distillers import LogitKD, LogitMSE
from kdzoo.errors import ConfigError
from tests.distillers.logits.conftest import FixedLogits, assert_gradient_reaches_student_only, assert_terms, make_case
from tests.reference import distillers as reference


def test_terms_equal_the_reference(case):
    expected = {"match": reference.match(*case.arrays, case.valid), "hard": case.expected_hard()}
    assert_terms(LogitMSE(case.student, case.teacher).losses(case.batch), expected)


def test_gradient_reaches_valid_positions_of_the_student_only():
    case = make_case("sequences, mask, some labels")
    assert_gradient_reaches_student_only(LogitMSE(case.student, case.teacher), case.batch)


def test_a_constant_added_to_all_logits_of_a_position_changes_nothing():
    case = make_case("images")
    shifted = FixedLogits(case.student_logits + torch.linspace(-5, 5, 7)[:, None])
    terms, expected = (LogitMSE(student, case.teacher).losses(case.batch) for student in (shifted, case.student))
    torch.testing.assert_close(terms, expected, rtol=1e-5, atol=1e-6)


def test_it_is_the_limit_of_logit_distillation_at_high_temperature():
    case = make_case("images")
    match = LogitMSE(case.student, case.teacher).losses(case.batch)["match"]
    gaps = []
    for temperature in (10.0, 100.0, 1000.0):
        soft = LogitKD(case.student, case.teacher, temperature=temperature).losses(case.batch)["soft"]
        gaps.append(float((soft / match - 1).detach().abs().max()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


def test_a_teacher_is_required():
    with pytest.raises(ConfigError, match="LogitMSE needs a teacher, got teacher=None"):
        LogitMSE(make_case("images").student, None)
