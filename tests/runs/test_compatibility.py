"""Which models and methods work together: every combination works, or is refused in one line."""

from functools import cache
from itertools import product

import pytest

from kdzoo.config import registry
from kdzoo.runs.compatibility import Compatibility

# A model of every kind, and the data that they need: samples and strings.
TEACHERS = ("mlp", "rnn_lm", "bert", "hvae", "gan", "autoencoder")
STUDENTS = ("mlp", "mps", "rnn_lm", "pfa", "bert", "hvae", "gan", "autoencoder", "synthetic", "poison")
DATA = ("digits", "reber")
# Pairs of models that a method must connect: networks and matrix product states, language models of every sort and
# automata in both directions, labels of a classifier and synthetic sets, and generators.
WORKS = {
    "logit_kd": [
        *product(("mlp", "convnet", "resnet", "mps"), ("mlp", "mps", "patch_mps", "convnet")),
        *product(("rnn_lm", "transformer_lm", "lm_ensemble", "pfa"), ("rnn_lm", "transformer_lm", "pfa")),
    ],
    "ot_pfa": [*product(("rnn_lm", "transformer_lm", "lm_ensemble", "pfa"), ("pfa",))],
    "dataset": [("mlp", "synthetic"), ("convnet", "synthetic"), ("full_data", "synthetic")],
    "semi_auxiliary": [("hvae", "hvae")],
    "generator_kd": [("gan", "gan")],
    "autoencoder_kd": [("autoencoder", "autoencoder")],
    "distilbert": [("bert", "bert")],
}


@cache
def compatibility():
    return Compatibility(DATA)


@pytest.mark.parametrize("distiller", sorted(registry.targets("distiller")))
def test_every_combination_works_or_is_refused_in_one_line(distiller):
    for outcome in (compatibility().outcome(distiller, *models) for models in product(TEACHERS, STUDENTS)):
        assert (outcome.data is None) == bool(outcome.reason)
        assert "\n" not in outcome.reason
        assert len(outcome.reason) < 400


@pytest.mark.parametrize("distiller", WORKS)
def test_models_that_belong_together_work(distiller):
    outcomes = {models: compatibility().outcome(distiller, *models).reason for models in WORKS[distiller]}
    assert outcomes == dict.fromkeys(WORKS[distiller], "")


@pytest.mark.parametrize(
    ("combination", "reason"),
    [
        (("logit_kd", "mlp", "pfa"), "PFA"),
        (("ot_pfa", "mlp", "mlp"), "OTPFA needs a language model"),
        (("feature_kd", "mlp", "mlp"), "distiller.layers is missing"),
        (("logit_kd", "hf", "mlp"), "teacher.path is missing"),
        (("semi_auxiliary", "gan", "gan"), "allowed: w2 or mmd"),
    ],
)
def test_what_a_method_has_against_models_is_said_before_what_data_lack(combination, reason):
    outcome = compatibility().outcome(*combination)
    assert outcome.data is None
    assert reason in outcome.reason


def test_a_distiller_without_a_teacher_has_none():
    assert compatibility().outcome("supervised", "mlp", "mlp").teacher is None
