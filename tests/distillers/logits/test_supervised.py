"""Supervised training: cross entropy at the labelled positions, without a teacher."""

import pytest

from kdzoo.distillers import LogitKD, Supervised
from kdzoo.errors import ConfigError
from tests.distillers.logits.conftest import assert_gradient_reaches_student_only, assert_terms, make_case


def test_term_equals_the_reference(case):
    assert_terms(Supervised(case.student).losses(case.batch), {"hard": case.expected_hard()})


def test_gradient_reaches_valid_positions_of_the_student_only():
    case = make_case("sequences, mask, some labels")
    assert_gradient_reaches_student_only(Supervised(case.student), case.batch)


def test_term_is_the_hard_term_of_logit_distillation(case):
    hard = Supervised(case.student).losses(case.batch)["hard"]
    other = LogitKD(case.student, case.teacher).losses(case.batch)["hard"]
    assert hard.tolist() == other.tolist()


def test_other_terms_are_refused():
    with pytest.raises(ConfigError, match=r"loss_weights\.soft is not a term of this distiller; its terms: \['hard'\]"):
        Supervised(make_case("images").student, loss_weights={"soft": 1.0})
