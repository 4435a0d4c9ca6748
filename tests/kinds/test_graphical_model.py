"""The kind of graphical models: samples under shared noise, scores, reference scores, and rejected models."""

import copy
import math

import pytest
import torch
from torch import nn

from kdzoo import kinds
from kdzoo.data import GaussianMixture
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph, Latent, Normal, Target
from kdzoo.graphical_models.inference_scores import active_units, importance_weighted_bound
from kdzoo.graphical_models.sample_plots import pixel_view
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.kinds.sample_sets import StoredSamples, sample_set
from kdzoo.models import HVAE, MLP, HelmholtzMachine


@pytest.fixture(scope="module")
def kind(digits, tmp_path_factory):
    return GraphicalModelKind().bind(digits, tmp_path_factory.mktemp("cache"))


def model(seed=0, width=6):
    torch.manual_seed(seed)
    return HVAE(in_shape=(1, 8, 8), latents=[4, 2], width=width)


# ---------------------------------------------------------------- samples


def test_equal_models_have_equal_samples_under_shared_noise_only(kind, digits):
    teacher = kind.predict(model(), digits.test_dataloader())
    student = kind.predict(copy.deepcopy(model()), digits.test_dataloader())
    fidelity = kind.fidelity(student, teacher)
    assert fidelity["frechet_paired"] == pytest.approx(0, abs=1e-5)
    assert fidelity["emd_paired"] == pytest.approx(0, abs=1e-9)
    assert fidelity["one_nn_paired"] <= 0.5
    assert fidelity["emd_independent"] > 0.01


def test_samples_of_a_conditional_model_have_the_classes_of_the_observations():
    torch.manual_seed(0)
    conditional = HVAE(in_shape=(7,), num_classes=6, latents=[4, 3], width=8, conditional=True).eval()
    targets = torch.tensor([4] * 30 + [5] * 10)
    batches = [{"input": torch.rand(len(part), 7), "target": part} for part in targets.split(16)]
    kind = GraphicalModelKind()
    predictions = kind.predict(conditional, batches)
    noise = conditional.noise(40, generator=torch.Generator().manual_seed(0))
    expected = conditional.samples(noise, {"label": torch.eye(6)[targets]})
    torch.testing.assert_close(predictions.shared["values"], expected.detach().double())
    metrics = kind.metrics(predictions)
    assert kind.quick_scores(conditional, batches) == {name: metrics[name] for name in ("frechet", "one_nn")}


# ---------------------------------------------------------------- measurements


def test_real_samples_have_better_scores_than_an_untrained_model(kind, digits):
    references = kind.reference_models({"teacher": model()}, digits)
    assert list(references) == ["data", "teacher_again"]
    real = kind.metrics(kind.predict(references["data"], digits.test_dataloader()))
    untrained = kind.metrics(kind.predict(model(), digits.test_dataloader()))
    assert real["frechet"] < 0.3 * untrained["frechet"]
    assert real["frechet_random"] < untrained["frechet_random"]
    assert real["frechet_squared"] == pytest.approx(real["frechet"] ** 2)
    assert real["frechet_low"] < real["frechet"] < real["frechet_high"]
    assert 0.4 < real["one_nn"] < 0.65 < untrained["one_nn"]
    again = kind.predict(references["teacher_again"], digits.test_dataloader())
    assert kind.fidelity(again, kind.predict(model(), digits.test_dataloader()))["one_nn_paired"] > 0.4


def test_generative_parameters_leave_out_those_that_only_infer(kind):
    graph = model()
    inferring = sum(parameter.numel() for parameter in graph.inference_parameters())
    size = kinds.count_parameters(kind, graph)
    assert 0 < inferring < size
    assert kind.properties(graph) == {"generative_parameters": size - inferring}
    assert kind.properties(StoredSamples(torch.zeros(1, 2), torch.zeros(1, 2))) == {}


def test_the_bound_is_reported_of_models_that_were_trained_to_infer(kind, digits):
    graph = model()
    assert "negative_bound" not in kind.metrics(kind.predict(graph, digits.test_dataloader()))
    graph.posteriors_trained.fill_(True)
    batch = next(iter(digits.test_dataloader()))
    bound = kind.metrics(kind.predict(graph, [batch]))["negative_bound"]
    with torch.no_grad():
        terms = graph.negative_elbo(batch, graph.elbo_noise(len(batch["input"])))
    assert bound == pytest.approx(float(sum(value.mean() for value in terms.values())), rel=0.01)


def test_the_weighted_bound_and_the_active_units_come_with_the_bound(kind, digits, monkeypatch):
    monkeypatch.setattr("kdzoo.kinds.graphical_model.WEIGHED_OBSERVATIONS", 150)
    graph = model()
    names = {"negative_weighted_bound", "active_units"}
    assert not names & kind.metrics(kind.predict(graph, digits.test_dataloader())).keys()
    graph.posteriors_trained.fill_(True)
    first = next(iter(digits.test_dataloader()))
    batches = [{key: value[start : start + 100] for key, value in first.items()} for start in (0, 100, 200)]
    metrics = kind.metrics(kind.predict(graph, batches))
    expected = importance_weighted_bound(graph, [batches[0], {k: v[:50] for k, v in batches[1].items()}], 50)
    assert metrics["negative_weighted_bound"] == -expected
    assert metrics["negative_weighted_bound"] <= metrics["negative_bound"] + 0.5
    active = torch.cat(list(active_units(graph, batches).values()))
    assert metrics["active_units"] == pytest.approx(float(active.double().mean()))


def test_models_with_an_exact_density_report_it_and_their_exact_divergence():
    torch.manual_seed(0)
    teacher, student = (HelmholtzMachine(in_shape=(2,), width=width) for width in (4, 2))
    kind = GraphicalModelKind()
    batches = [{"input": torch.randn(20, 2)}, {"input": torch.randn(10, 2)}]
    predictions = {role: kind.predict(graph, batches) for role, graph in (("teacher", teacher), ("student", student))}
    points = torch.cat([batch["input"] for batch in batches])
    expected = -float(teacher.log_density(points).mean().detach())
    assert kind.metrics(predictions["teacher"])["negative_log_density"] == pytest.approx(expected)
    fidelity = kind.fidelity(predictions["student"], predictions["teacher"])
    assert fidelity["kl"] == teacher.divergence_from(student)


def test_modes_are_counted_where_the_data_know_them(tmp_path):
    data = GaussianMixture(n_test=200)
    data.setup()
    kind = GraphicalModelKind().bind(data, tmp_path)
    half = data.means[:4].repeat(50, 1)
    metrics = kind.metrics(kind.predict(StoredSamples(half, half), data.test_dataloader()))
    assert (metrics["modes"], metrics["mode_share"]) == (4, 1.0)
    assert metrics["mode_kl"] == pytest.approx(math.log(2))
    observed = torch.cat([batch["input"] for batch in data.test_dataloader()])
    assert kind.metrics(kind.predict(StoredSamples(observed, observed), data.test_dataloader()))["modes"] == 8
    assert "modes" not in GraphicalModelKind().metrics(
        GraphicalModelKind().predict(StoredSamples(half, half), data.test_dataloader())
    )


def test_the_recommendation_compares_the_student_with_local_distillation():
    kind = GraphicalModelKind()
    errors = {"paired_error": 0.1, "dispersion": 0.9}
    fidelity = {"student": {"marginal": 1.0, **errors}, "local": {"marginal": 2.0, **errors}}
    assert kind.recommendation(fidelity).startswith("Recommendation: the surrogate loss here;")
    assert kind.recommendation({"student": fidelity["student"]}) is None


def test_samples_are_drawn_side_by_side(kind, digits, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "kdzoo.kinds.graphical_model.plotting.image_rows", lambda rows, path, **_: drawn.update(rows) or path
    )
    models = {role: model(seed) for seed, role in enumerate("ab")}
    predictions = {role: kind.predict(models[role], digits.test_dataloader()) for role in models}
    assert kind.plot_predictions(predictions, tmp_path) == [tmp_path / "samples.png"]
    observed = torch.cat([batch["input"] for batch in digits.train_eval_dataloader()])
    view = pixel_view(digits, observed)
    for role, images in drawn.items():
        samples = sample_set(models[role], len(digits.splits.test), 0, {})[: len(images)]
        torch.testing.assert_close(torch.from_numpy(images), view(samples))
    assert list(drawn) == ["a", "b"]
    assert not (drawn["a"] == drawn["b"]).all()


# ---------------------------------------------------------------- rejected models


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (MLP(in_shape=(1, 8, 8), num_classes=10), "student MLP is not a directed graphical model"),
        (HVAE(in_shape=(1, 4, 4)), r"its samples have shape \(1, 4, 4\), the data \(1, 8, 8\)"),
    ],
    ids=["classifier", "other_shape"],
)
def test_a_model_that_does_not_fit_raises(student, message, kind, digits):
    with pytest.raises(ConfigError, match=message):
        kind.check("student", student, next(iter(digits.test_dataloader())), digits.sizes)


def test_a_control_without_posteriors_raises():
    kind = GraphicalModelKind()
    kind.check_teacher_free(model())
    kind.check_teacher_free(HelmholtzMachine(in_shape=(2,)))  # trained by wake-sleep, without posteriors
    latent = Latent("z", Normal((2,), scale=1.0))
    decoder = Graph([latent, Target("y", Normal((3,), scale=0.5), nn.Linear(2, 3), "z")])
    with pytest.raises(ConfigError, match="latent 'z' has no posterior; set control=false"):
        kind.check_teacher_free(decoder)


def test_graphs_are_claimed_by_no_other_kind():
    assert [kind.name for kind in kinds.KINDS.values() if kind.is_exclusive_match(model())] == ["graphical_model"]
    assert not GraphicalModelKind().is_exclusive_match(nn.Linear(1, 1))
