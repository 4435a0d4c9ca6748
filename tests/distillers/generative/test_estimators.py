"""The estimators of gradients through discrete latents, each on its own."""

import pytest
import torch

from kdzoo.distillers.generative.estimators import (
    Enumeration,
    GradientEstimator,
    GumbelSoftmax,
    PairedRollout,
    Reinforce,
    StraightThrough,
    make_estimator,
)
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.discrete import reinforce
from kdzoo.graphical_models.enumeration import enumerated_divergences
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.paired import paired_rollout
from tests.distillers.generative.cases import binary_chain, normal_chain

NAMES = ("none", "straight_through", "gumbel", "reinforce", "enumerate")


def make(name, temperature=1.0, samples=3, divergence="kl"):
    return make_estimator(name, temperature=temperature, samples=samples, divergence=divergence)


def rollout(estimator, n=6):
    teacher, student = binary_chain(0), binary_chain(1)
    noise = estimator.noise_rows(estimator.draw_noise(teacher, n))
    pair = paired_rollout(teacher, student, noise, sampler=estimator.sampler)
    return PairedRollout(teacher, student, pair, noise, {})


def test_names_and_classes():
    classes = (GradientEstimator, StraightThrough, GumbelSoftmax, Reinforce, Enumeration)
    assert [type(make(name)) for name in NAMES] == list(classes)


@pytest.mark.parametrize("name", NAMES)
def test_properties(name):
    estimator = make(name)
    assert estimator.samples == (3 if name == "reinforce" else 1)
    assert bool(estimator.missing_bound) == (name == "gumbel")
    assert estimator.allows_mixed_latents == (name not in ("reinforce", "enumerate"))


@pytest.mark.parametrize("name", NAMES)
def test_terms_have_one_value_for_each_sample_and_targets_come_first(name):
    estimator = make(name)
    run = rollout(estimator)
    terms = estimator.terms(NodeDivergences()(run.pair, run.student), run)
    assert list(terms) == ["y", "z2", "z1"]
    assert {value.shape for value in terms.values()} == {(6,)}


@pytest.mark.parametrize("name", ["none", "straight_through", "gumbel"])
def test_samplers_leave_the_terms_as_they_are(name):
    estimator = make(name)
    run = rollout(estimator)
    divergences = NodeDivergences()(run.pair, run.student)
    assert estimator.terms(divergences, run) is divergences


def test_values_are_hard_unless_they_are_relaxed():
    for name in NAMES:
        values = rollout(make(name)).pair.student.values["z1"]
        assert bool(((values == 0) | (values == 1)).all()) == (name != "gumbel")
        assert values.requires_grad == (name in ("straight_through", "gumbel"))


def test_reinforce_averages_latents_and_estimates_targets():
    estimator = Reinforce(3)
    run = rollout(estimator)
    divergences = NodeDivergences()(run.pair, run.student)
    terms = estimator.terms(divergences, run)
    torch.testing.assert_close(terms["z1"], divergences["z1"].unflatten(0, (6, 3)).mean(1))
    expected = reinforce({"y": divergences["y"]}, run.pair, run.teacher, run.student, samples=3)["y"]
    assert torch.equal(terms["y"], expected)


def test_rows_of_one_sample_are_adjacent():
    teacher, estimator = normal_chain(), Reinforce(3)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    noise = estimator.draw_noise(teacher, 4, generator=generators[0])
    assert noise["z1"].shape == (4, 3, 4)
    rows = estimator.noise_rows(noise)
    assert torch.equal(rows["z1"], teacher.noise(12, generator=generators[1])["z1"])
    repeated = estimator.repeat({"label": torch.tensor([5, 6]), "forced": True})
    assert repeated["label"].tolist() == [5, 5, 5, 6, 6, 6]
    assert repeated["forced"] is True


def test_one_rollout_for_each_sample_changes_nothing():
    estimator, noise = GradientEstimator(), {"z": torch.rand(4, 2)}
    assert estimator.noise_rows(noise) is noise
    assert estimator.repeat(noise) == noise
    assert estimator.draw_noise(normal_chain(), 4).keys() == {"z1", "z2"}
    assert estimator.draw_noise(normal_chain(), 4, leaves=True).keys() == {"z1", "z2", "y"}


def test_enumeration_replaces_targets_by_their_expectations():
    estimator = Enumeration("w2")
    run = rollout(estimator)
    divergences = NodeDivergences("w2")(run.pair, run.student)
    terms = estimator.terms(divergences, run)
    assert torch.equal(terms["z1"], divergences["z1"])
    expected = enumerated_divergences(run.teacher, run.student, run.pair.teacher, run.noise, kind="w2")
    assert torch.equal(terms["y"], expected["y"])


def test_enumeration_needs_no_average_over_the_noise():
    estimator = Enumeration("kl")
    run = rollout(estimator, n=2)
    terms = estimator.terms(NodeDivergences()(run.pair, run.student), run)
    exact = expected_divergences(run.teacher, run.student)["y"]
    torch.testing.assert_close(terms["y"], exact.expand(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "exact"},
            "^estimator must be one of none, straight_through, gumbel, reinforce, enumerate, got 'exact'$",
        ),
        ({"name": "gumbel", "temperature": 0.0}, "^temperature must be finite and > 0, got 0.0$"),
        ({"name": "reinforce", "samples": 1}, "^samples must be an integer >= 2, got 1$"),
        ({"name": "none", "samples": 1}, "^samples must be an integer >= 2, got 1$"),
    ],
    ids=["name", "temperature", "samples", "unused"],
)
def test_an_invalid_argument_raises(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
