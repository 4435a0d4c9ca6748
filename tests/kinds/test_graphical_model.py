"""The kind of graphical models: samples under shared noise, distances, reference scores, and refused models."""

import copy

import pytest
import torch
from torch import nn

from kdzoo import kinds
from kdzoo.data import Digits
from kdzoo.errors import ConfigError
from kdzoo.kinds.graphical_model import GraphicalModelKind, Samples
from kdzoo.models import HVAE, MLP


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None)
    data.setup()
    return data


@pytest.fixture(scope="module")
def kind(digits, tmp_path_factory):
    return GraphicalModelKind().bind(digits, tmp_path_factory.mktemp("cache"))


def model(seed=0, width=6):
    torch.manual_seed(seed)
    return HVAE(in_shape=(1, 8, 8), latents=[4, 2], width=width)


def test_equal_models_have_equal_samples_under_shared_noise_only(kind, digits):
    teacher = kind.predict(model(), digits.test_dataloader())
    student = kind.predict(copy.deepcopy(model()), digits.test_dataloader())
    fidelity = kind.fidelity(student, teacher)
    assert fidelity["frechet_paired"] == pytest.approx(0, abs=1e-5)
    assert fidelity["emd_paired"] == pytest.approx(0, abs=1e-9)
    assert fidelity["one_nn_paired"] <= 0.5
    assert fidelity["emd_independent"] > 0.01


def test_metrics_see_that_data_are_better_than_an_untrained_model(kind, digits):
    reference_models = kind.reference_models({"teacher": model()}, digits)
    assert list(reference_models) == ["data", "teacher_again"]
    real = kind.metrics(kind.predict(reference_models["data"], digits.test_dataloader()))
    untrained = kind.metrics(kind.predict(model(), digits.test_dataloader()))
    assert real["frechet"] < 0.3 * untrained["frechet"]
    assert real["frechet_random"] < untrained["frechet_random"]
    assert real["frechet_squared"] == pytest.approx(real["frechet"] ** 2)
    assert real["frechet_low"] < real["frechet"] < real["frechet_high"]
    assert 0.4 < real["one_nn"] < 0.65 < untrained["one_nn"]
    again = kind.predict(reference_models["teacher_again"], digits.test_dataloader())
    assert kind.fidelity(again, kind.predict(model(), digits.test_dataloader()))["one_nn_paired"] > 0.4


def test_sizes_with_and_without_what_only_infers(kind):
    one = model()
    inferring = sum(parameter.numel() for parameter in one.inference_parameters())
    assert 0 < inferring < kind.size(one)
    assert kind.properties(one) == {"generative_parameters": kind.size(one) - inferring}
    assert kind.properties(Samples(torch.zeros(1, 2), torch.zeros(1, 2))) == {}


def test_the_bound_is_reported_of_models_that_were_trained_to_infer(kind, digits):
    one = model()
    assert "negative_bound" not in kind.metrics(kind.predict(one, digits.test_dataloader()))
    one.posteriors_trained.fill_(True)
    batch = next(iter(digits.test_dataloader()))
    found = kind.metrics(kind.predict(one, [batch]))["negative_bound"]
    terms = one.negative_elbo(batch, one.elbo_noise(len(batch["input"])))
    assert found == pytest.approx(float(sum(value.mean() for value in terms.values())), rel=0.01)


def test_samples_are_drawn_side_by_side(kind, digits, tmp_path):
    predictions = {name: kind.predict(model(seed), digits.test_dataloader()) for seed, name in enumerate("ab")}
    (path,) = kind.plot_predictions(predictions, tmp_path)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (MLP(in_shape=(1, 8, 8), num_classes=10), "student MLP is not a directed graphical model"),
        (HVAE(in_shape=(1, 4, 4)), r"its samples have shape \(1, 4, 4\), the data \(1, 8, 8\)"),
    ],
    ids=["classifier", "other_shape"],
)
def test_what_does_not_fit_is_refused(one, words, kind, digits):
    with pytest.raises(ConfigError, match=words):
        kind.check("student", one, next(iter(digits.test_dataloader())), digits.sizes)


def test_graphs_are_of_no_other_kind():
    assert [kind.name for kind in kinds.KINDS.values() if kind.is_exclusive_match(model())] == ["graphical_model"]
    assert not GraphicalModelKind().is_exclusive_match(nn.Linear(1, 1))
