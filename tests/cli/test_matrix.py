"""The command ``kdzoo matrix``."""

import pytest

from kdzoo.cli.matrix import print_kinds, print_outcomes
from kdzoo.config import registry
from kdzoo.errors import ConfigError


def test_kinds_are_printed_for_every_distiller(capsys):
    print_kinds()
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line} >= set(registry.targets("distiller"))
    (line,) = (line for line in lines if line.startswith("ot_pfa"))
    assert line.split() == ["ot_pfa", "language_model", "automaton"]
    (line,) = (line for line in lines if line.startswith("elbo"))
    assert line.split() == ["elbo", "none", "graphical_model"]


def test_what_works_comes_first_and_refusals_are_grouped_by_their_reason(capsys):
    print_outcomes(["teacher=rnn_lm", "student=pfa", "data=reber"], None)
    printed = capsys.readouterr().out
    works, *refused = printed.split("\nrefused: ")
    assert ["ot_pfa", "rnn_lm", "pfa", "reber"] in [line.split() for line in works.splitlines()]
    reasons = [text.splitlines()[0] for text in refused]
    assert len(reasons) == len(set(reasons))
    (needing_layers,) = (text for text in refused if text.startswith("distiller.layers is missing"))
    assert "feature_kd: rnn_lm to pfa; relational_kd: rnn_lm to pfa" in needing_layers


def test_further_settings_apply_to_all(capsys):
    chosen = ["distiller=feature_kd", "teacher=mlp", "student=mlp", "data=digits"]
    print_outcomes([*chosen, "distiller.layers={layers.0:layers.0}"], None)
    assert "feature_kd  mlp      mlp      digits" in capsys.readouterr().out


@pytest.mark.parametrize("data", [None, "reber"])
def test_data_are_tried_in_turn_unless_they_are_named(data, capsys):
    chosen = ["distiller=logit_kd", "teacher=mlp", "student=mlp"]
    print_outcomes([*chosen, *([f"data={data}"] if data else [])], None)
    assert ("refused" in capsys.readouterr().out) == (data is not None)


def test_a_role_must_be_named():
    with pytest.raises(ConfigError, match="at least one of distiller=NAME, teacher=NAME and student=NAME"):
        print_outcomes(["data=digits"], None)


def test_default_data_begin_with_that_of_a_run():
    assert registry.default_data()[0] == "digits"
    assert {"digits_labelled", "reber", "docstrings"} <= set(registry.default_data())
