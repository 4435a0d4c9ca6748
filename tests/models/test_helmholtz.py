"""The Helmholtz machine: its sizes, wake-sleep, the exact density and the exact divergence."""

import copy
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models import enumerated_divergences
from kdzoo.graphical_models.marginal import log_marginal
from kdzoo.graphical_models.paired import Pair, node_divergence, rollout_student, rollout_teacher
from kdzoo.models import HelmholtzMachine, kl_by_quadrature
from kdzoo.storage.checkpoint import load_student, save_model

ROOT = Path(os.environ.get("KDZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILE = ROOT / "old_faithful" / "OF.txt"


def machine(seed=0, width=8, deviation=1.0):
    """Return a machine with random weights, so that it has several modes."""
    torch.manual_seed(seed)
    model = HelmholtzMachine(in_shape=(2,), width=width)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=deviation)
    return model


@pytest.fixture(scope="module")
def points():
    if not FILE.exists():
        pytest.skip(f"there is no {FILE}")
    table = torch.from_numpy(np.loadtxt(FILE)[:, 1:]).float()
    return (table - table.mean(0)) / table.std(0, correction=0)


@pytest.mark.parametrize(("width", "generative", "inferring"), [(8, 186, 168), (2, 54, 48)], ids=["teacher", "student"])
def test_parameter_counts_are_those_of_the_paper(width, generative, inferring):
    model = HelmholtzMachine(in_shape=(2,), width=width)
    result = sum(parameter.numel() for parameter in model.inference_parameters())
    assert result == inferring
    assert sum(parameter.numel() for parameter in model.parameters()) == generative + inferring


def test_nodes_are_those_of_the_paper():
    model = machine()
    parents = {name: node.conditional.parents for name, node in model.random_nodes().items()}
    assert list(parents) == ["z4", "z3", "y2", "z2", "z1", "y1"]
    assert list(parents.values()) == [(), ("z4",), ("z3",), ("y2",), ("z2",), ("z1",)]
    given = {name: node.conditional.parents for name, node in model.recognizer.random_nodes().items()}
    assert given == {"z1": ("y1", "y2"), "z2": ("y2", "z1"), "z3": ("y2",), "z4": ("z3",)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_shape": (3,)}, r"^in_shape must be \(2,\), a point in the plane, got \(3,\)$"),
        ({"in_shape": (2,), "width": 0}, r"^width must be an integer >= 1, got 0$"),
    ],
    ids=["space", "width"],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        HelmholtzMachine(**options)


def test_points_of_another_shape_are_refused():
    model = machine()
    with pytest.raises(DataError, match=r"^input must be points \[b, 2\], got \[4, 3\]$"):
        model.negative_elbo({"input": torch.zeros(4, 3)}, model.elbo_noise(4))


def test_samples_are_in_the_order_of_the_data():
    model = machine()
    noise = model.noise(4)
    trace = model.rollout(noise)
    expected = torch.cat([trace.values["y1"], trace.values["y2"]], 1)
    assert torch.equal(model.samples(noise), expected)
    assert model(torch.zeros(5, 2)).shape == (5, 2)
    observed = model.observed({"input": expected}, model.targets())
    assert torch.equal(observed["y1"], trace.values["y1"])
    assert torch.equal(observed["y2"], trace.values["y2"])


def test_copies_files_and_double_precision_give_the_same_values(tmp_path):
    model = machine()
    places = torch.randn(5, 2)
    expected = model.log_density(places)
    assert torch.equal(copy.deepcopy(model).log_density(places), expected)
    torch.testing.assert_close(copy.deepcopy(model).double().log_density(places.double()).float(), expected)
    node = {"_target_": "kdzoo.models.HelmholtzMachine", "in_shape": [2], "width": 8}
    save_model(model, node, tmp_path)
    again = load_student(tmp_path)
    assert torch.equal(again.log_density(places), expected)
    assert all(
        torch.equal(one, other)
        for one, other in zip(again.inference_parameters(), model.inference_parameters(), strict=True)
    )


# ---------------------------------------------------------------- wake-sleep


def gradients(terms, model):
    total = sum(value.sum() for value in terms)
    parameters = dict(model.named_parameters())
    result = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {name for name, one in zip(parameters, result, strict=True) if one is not None}


def test_wake_trains_the_model_and_sleep_the_recognizer():
    model = machine()
    terms = model.negative_elbo({"input": torch.randn(20, 2)}, model.elbo_noise(20))
    assert set(terms) == {*model.random_nodes(), "sleep"}
    assert all(value.shape == (20,) for value in terms.values())
    inferring = {name for name, _ in model.named_parameters() if name.startswith("recognizer.")}
    sleep = terms.pop("sleep")
    assert gradients([sleep], model) == inferring
    assert gradients(terms.values(), model) == {name for name, _ in model.named_parameters()} - inferring


def test_the_terms_are_the_log_densities_of_both_directions():
    model = machine().double()
    places, noise = torch.randn(6, 2).double(), model.elbo_noise(6)
    terms = model.negative_elbo({"input": places}, noise)
    inferred = recognised(model, places, {k.removeprefix("wake|"): v for k, v in noise.items() if "wake" in k})
    values = {**inferred, "y1": places[:, :1], "y2": places[:, 1:]}
    trace = model.rollout({}, forced=values)
    for name, node in model.random_nodes().items():
        raw = node.conditional([values[parent] for parent in node.conditional.parents], 6, model.like)
        expected = -node.family.distribution(raw).log_prob(values[name]).sum(1)
        torch.testing.assert_close(terms[name], expected)
        torch.testing.assert_close(trace.raw[name], raw)
    dreamt = model.rollout({k.removeprefix("sleep|"): v for k, v in noise.items() if "sleep" in k}).values
    asleep = sum(
        -node.family.distribution(node.conditional([dreamt[parent] for parent in node.conditional.parents], 6, places))
        .log_prob(dreamt[name])
        .sum(1)
        for name, node in model.recognizer.random_nodes().items()
    )
    torch.testing.assert_close(terms["sleep"], asleep)


def recognised(model, places, noise):
    """Return the inferred bits, one latent after the other by hand."""
    values = {"y1": places[:, :1], "y2": places[:, 1:]}
    for name, node in model.recognizer.latents().items():
        raw = node.conditional([values[parent] for parent in node.conditional.parents], len(places), places)
        values[name] = (noise[name] < raw.sigmoid()).double()
    return {name: values[name] for name in noise}


def test_wake_sleep_raises_the_exact_density(points):
    # This start and a high rate reach two modes in 120 steps; others stay near one normal distribution for hundreds.
    torch.manual_seed(1)
    model = HelmholtzMachine(in_shape=(2,), width=8)
    before = model.log_density(points).mean()
    adam = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(120):
        adam.zero_grad()
        terms = model.negative_elbo({"input": points}, model.elbo_noise(len(points)))
        sum(value.mean() for value in terms.values()).backward()
        adam.step()
    after = model.log_density(points).mean()
    one_normal = -(1 + np.log(2 * np.pi)) - 0.5 * np.log(np.linalg.det(np.cov(points.T.numpy(), bias=True)))
    assert before < -4
    assert after > before + 2
    assert after > one_normal  # better than the one normal distribution that fits best


# ---------------------------------------------------------------- the exact density


def test_the_density_is_the_sum_over_all_states():
    model = machine().double()
    places = torch.randn(4, 2).double()
    states = [torch.tensor([bits]).double() for bits in product((0, 1), repeat=2)]
    expected = torch.zeros(4).double()
    for z1, z2, z3, z4 in product(states, repeat=4):
        values = {"z1": z1, "z2": z2, "z3": z3, "z4": z4}
        values = {name: value.expand(4, 2) for name, value in values.items()}
        values |= {"y1": places[:, :1], "y2": places[:, 1:]}
        distributions = model.rollout({}, forced=values).distributions
        expected = expected + sum(distributions[name].log_prob(values[name]).sum(1) for name in values).exp()
    torch.testing.assert_close(model.log_density(places).exp(), expected)
    targets = {"y1": places[:, :1], "y2": places[:, 1:]}
    torch.testing.assert_close(model.log_density(places), log_marginal(model, targets))


def test_the_density_has_a_gradient_to_all_that_generates():
    model = machine()
    result = gradients([model.log_density(torch.randn(5, 2))], model)
    assert result == {name for name, _ in model.named_parameters() if not name.startswith("recognizer.")}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_divergence_agrees_with_a_finer_grid_and_with_samples(seed):
    teacher, student = machine(seed), machine(seed + 10, width=2)
    exact = kl_by_quadrature(teacher, student)
    assert abs(exact - kl_by_quadrature(teacher, student, points=18)) < 1e-6
    assert abs(exact - kl_by_quadrature(teacher, student, points=8)) < 1e-6
    with torch.no_grad():
        drawn = teacher.samples(teacher.noise(50_000))
        ratios = teacher.log_density(drawn) - student.log_density(drawn)
    assert abs(exact - ratios.double().mean()) <= 4 * ratios.std() / len(ratios) ** 0.5
    assert exact > 0.01


def test_the_divergence_of_equal_machines_is_zero():
    teacher = machine()
    assert kl_by_quadrature(teacher, copy.deepcopy(teacher)) == 0
    assert teacher.divergence_from(copy.deepcopy(teacher)) == 0


def test_the_divergence_of_a_shift_is_known():
    """Where all states have the same means, both densities are one normal distribution of deviation 0.5."""
    teacher = machine(deviation=0.0)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.targets()["y1"].conditional.net.layers[-1].bias += 0.3
        student.targets()["y2"].conditional.net.layers[-1].bias -= 0.4
    assert kl_by_quadrature(teacher, student) == pytest.approx((0.3**2 + 0.4**2) / (2 * 0.25), rel=1e-6)


def test_the_divergence_does_not_change_the_models():
    teacher, student = machine(0), machine(1)
    kl_by_quadrature(teacher, student, points=4)
    assert teacher.like.dtype == student.like.dtype == torch.float32
    assert next(student.parameters()).grad is None


# ---------------------------------------------------------------- distillation


def test_the_surrogate_loss_is_enumerated_in_both_targets():
    teacher, student = machine(0).double(), machine(1, width=2).double()
    noise = {name: value.double() for name, value in teacher.noise(3000).items()}
    trace = rollout_teacher(teacher, noise)
    pair = Pair(trace, rollout_student(student, trace, noise))
    result = enumerated_divergences(teacher, student, trace, noise)
    for name in ("y1", "y2"):
        difference = node_divergence(pair, name, "kl", "sum") - result[name]
        assert difference.mean().abs() <= 4 * difference.std() / len(difference) ** 0.5
    bound = sum(value.mean() for value in result.values())
    bound.backward()
    assert bound > kl_by_quadrature(teacher, student)
    generating = [p for name, p in student.named_parameters() if not name.startswith("recognizer.")]
    assert all(parameter.grad is not None for parameter in generating)
    assert student.latents()["z4"].conditional.net.value.grad.abs().max() > 0
