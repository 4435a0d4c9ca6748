"""Exact marginals, against sums and matrices by hand, SciPy, frequencies and finite differences."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import settings
from scipy.stats import norm
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import (
    STATE,
    Bernoulli,
    Categorical,
    Constant,
    Delta,
    DiscretizedLogistic,
    Graph,
    Input,
    Latent,
    Normal,
    Scan,
    Target,
)
from kdzoo.graphical_models.marginal import log_marginal, marginal_divergence, marginal_kl, marginal_table
from kdzoo.graphical_models.states import MAX_STATES
from tests.graphical_models.cases import (
    Curved,
    Last,
    bits,
    classes,
    curved,
    deviating,
    linear,
    machine,
    mixed,
    pair_of,
    random,
)

some = settings(max_examples=60, deadline=None, derandomize=True)


def test_the_density_of_a_machine_is_the_sum_over_all_states():
    torch.manual_seed(0)
    graph = random(machine())
    nets = {node.name: node.conditional.net for node in graph.nodes()}
    y1, y2 = torch.randn(2, 6, 1, dtype=torch.double)
    total = torch.zeros(6, dtype=torch.double)
    for one, other in product((0.0, 1.0), repeat=2):
        bits = torch.tensor([one, other], dtype=torch.double)
        probabilities = nets["z2"].value.sigmoid()
        of_bits = (bits * probabilities + (1 - bits) * (1 - probabilities)).prod()
        of_y2 = torch.distributions.Normal(nets["y2"](bits), 0.5).log_prob(y2).exp()[:, 0]
        for chosen in range(3):
            vector = torch.eye(3, dtype=torch.double)[chosen]
            mean, raw = nets["y1"](vector)
            scale = nn.functional.softplus(raw) / math.log(2) + 1e-6
            of_y1 = torch.distributions.Normal(mean, scale).log_prob(y1).exp()[:, 0]
            total = total + of_bits * of_y2 * nets["z1"](y2).softmax(1)[:, chosen] * of_y1
    torch.testing.assert_close(log_marginal(graph, {"y1": y1, "y2": y2}), total.log(), atol=1e-10, rtol=1e-10)


def test_the_density_of_a_machine_has_mass_one():
    torch.manual_seed(0)
    graph = random(machine(), 0.5)
    axis = torch.linspace(-12, 12, 241, dtype=torch.double)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        logs = log_marginal(graph, {"y2": points[:, :1], "y1": points[:, 1:]})
    assert float(logs.exp().sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-6)


def test_without_latents_it_is_the_density_of_the_targets():
    torch.manual_seed(0)
    graph = random(
        Graph([Input("x", Normal((2,), scale=1.0)), Target("y", Normal((3,), scale=0.5), Curved(2, 3), "x")])
    )
    x, y = torch.randn(4, 2, dtype=torch.double), torch.randn(4, 3, dtype=torch.double)
    mean = graph.targets()["y"].conditional.net(x).detach().numpy()
    expected = norm.logpdf(y.numpy(), mean, 0.5).sum(1)
    np.testing.assert_allclose(log_marginal(graph, {"y": y}, {"x": x}).detach(), expected, rtol=1e-12)


def test_a_table_has_mass_one_and_the_frequencies_of_samples():
    torch.manual_seed(0)
    graph, n = random(classes()), 50_000
    x = torch.randn(3, 2, dtype=torch.double)
    with torch.no_grad():
        states, logs = marginal_table(graph, {"x": x})
        assert states["a"].shape == (27, 3)
        assert states["b"].shape == (27, 2, 3)
        assert logs.shape == (3, 27)
        torch.testing.assert_close(logs.exp().sum(1), torch.ones(3, dtype=torch.double), atol=1e-12, rtol=0)
        noise = graph.noise(n, leaves=True, generator=torch.Generator().manual_seed(1))
        values = graph.rollout(noise, {"x": x[1:2].expand(n, 2)}).values
    flat, drawn = (torch.cat([one[name].flatten(1) for name in ("a", "b")], 1) for one in (states, values))
    hits = (drawn @ flat.T == 3).double()
    frequencies, probabilities = hits.mean(0), logs[1].exp()
    errors = (probabilities * (1 - probabilities) / n).sqrt()
    assert hits.sum(1).eq(1).all()
    assert ((frequencies - probabilities).abs() <= 4.5 * errors).all()


def test_a_table_of_a_sequence_of_bits_equals_that_of_a_hidden_markov_model():
    torch.manual_seed(0)
    nodes = [
        Latent("z", Bernoulli((1,)), nn.Linear(1, 1), STATE),
        Target("y", Bernoulli((1,)), nn.Linear(1, 1), "z"),
    ]
    graph = random(Graph([Scan(nodes, Last("z", 1), 4)]), 2.0)
    bits = torch.tensor([[0.0], [1.0]], dtype=torch.double)
    with torch.no_grad():
        states, logs = marginal_table(graph)
        moves, seen = (node.conditional.net(bits).sigmoid().flatten().tolist() for node in nodes)
    probabilities = [[1 - p, p] for p in moves]
    emitted = [[1 - p, p] for p in seen]
    assert states["y"].shape == (16, 4, 1)
    for y, result in zip(states["y"][..., 0].int().tolist(), logs[0].exp().tolist(), strict=True):
        reached = [1.0, 0.0]
        for bit in y:
            reached = [sum(reached[i] * probabilities[i][j] for i in (0, 1)) * emitted[j][bit] for j in (0, 1)]
        assert result == pytest.approx(sum(reached), rel=1e-12)


@pytest.mark.parametrize("model", [linear, classes], ids=["linear", "classes"])
def test_kl_of_marginals_is_the_mean_log_ratio_of_samples(model):
    torch.manual_seed(0)
    teacher, student, n = random(model(), 0.7), random(model(), 0.7), 20_000
    x = torch.randn(1, 2, dtype=torch.double)
    inputs, rows = {"x": x}, {"x": x.expand(n, 2)}
    with torch.no_grad():
        exact = float(marginal_kl(teacher, student, inputs))
        values = teacher.rollout(teacher.noise(n, leaves=True), rows).values
        y = {name: values[name] for name in teacher.targets()}
        ratio = log_marginal(teacher, y, rows) - log_marginal(student, y, rows)
    assert exact > 0
    assert abs(float(ratio.mean()) - exact) <= 4 * float(ratio.std()) / n**0.5


@pytest.mark.parametrize("model", [linear, classes], ids=["linear", "classes"])
def test_kl_of_marginals_has_the_gradient_of_finite_differences(model):
    torch.manual_seed(0)
    teacher, student = random(model(), 0.7), random(model(), 0.7)
    inputs = {"x": torch.randn(2, 2, dtype=torch.double)}
    marginal_kl(teacher, student, inputs).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for parameter in student.parameters():
        with torch.no_grad():
            direction, step = torch.randn_like(parameter), 1e-5
            values = []
            for sign in (1, -1):
                parameter += sign * step * direction
                values.append(float(marginal_kl(teacher, student, inputs).sum()))
                parameter -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, abs=1e-6, rel=1e-5)


def test_latents_of_a_marginal_need_no_partner():
    torch.manual_seed(0)
    teacher = random(
        Graph([Latent("z", Bernoulli((3,)), Constant(3)), Target("y", Bernoulli((2,)), Curved(3, 2), "z")])
    )
    student = random(
        Graph([Latent("c", Categorical((5,)), Constant(5)), Target("y", Bernoulli((2,)), Curved(5, 2), "c")])
    )
    before = marginal_kl(teacher, student).item()
    optimizer = torch.optim.Adam(student.parameters(), 0.1)
    for _ in range(60):
        loss = marginal_divergence(teacher, student, teacher.noise(4))
        assert loss.shape == (4,)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert before > 0.05
    assert 0 <= marginal_kl(teacher, student).item() < 1e-3


def test_the_divergence_of_samples_is_unbiased_and_trains_a_student():
    """Against the integral over a grid."""
    torch.manual_seed(0)
    teacher, student, n = random(machine()), random(machine()), 10_000
    axis = torch.linspace(-9, 9, 121, dtype=torch.double)
    points = torch.cartesian_prod(axis, axis)
    y = {"y2": points[:, :1], "y1": points[:, 1:]}

    def integral():
        with torch.no_grad():
            one, other = log_marginal(teacher, y), log_marginal(student, y)
        return float((one.exp() * (one - other)).sum() * (axis[1] - axis[0]) ** 2)

    with torch.no_grad():
        values = marginal_divergence(teacher, student, teacher.noise(n, leaves=True))
    before = integral()
    assert abs(float(values.mean()) - before) <= 4 * float(values.std()) / n**0.5
    optimizer = torch.optim.Adam(student.parameters(), 0.05)
    for _ in range(60):
        loss = marginal_divergence(teacher, student, teacher.noise(128, leaves=True)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert integral() < 0.5 * before


@pytest.mark.parametrize("model", [linear, classes, machine], ids=["linear", "classes", "machine"])
def test_a_student_equal_to_its_teacher_has_its_marginal(model):
    torch.manual_seed(0)
    graph = random(model())
    inputs = {name: value.double() for name, value in graph.draw_inputs(5).items()}
    values = marginal_divergence(graph, graph, graph.noise(5, leaves=True), inputs)
    assert values.shape == (5,)
    assert values.abs().max().item() <= 1e-12


REFUSALS = {
    "curved net": (curved, r"^node 'y' must be an affine function of the noise, but is off by "),
    "deviation of a latent": (deviating, r"^node 'y' must be an affine function of the noise"),
    "grid latent": (
        lambda: pair_of(DiscretizedLogistic((1,)), Normal((1,), scale=0.5), nn.Linear(1, 1)),
        r"^node 'z': a linear normal graph has only Normal nodes, got DiscretizedLogistic",
    ),
    "normal and discrete": (mixed, r"^node 'b': a linear normal graph has only Normal nodes, got Bernoulli"),
    "too many states": (lambda: bits(17), rf"^nodes z have more than {MAX_STATES} states together$"),
    "point": (
        lambda: pair_of(Bernoulli((1,)), Delta((1,)), nn.Linear(1, 1)),
        r"^target 'y' is a Delta, which has no density$",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_graphs_without_an_exact_marginal_are_refused(case):
    torch.manual_seed(0)
    make, message = REFUSALS[case]
    graph = make()
    y = torch.zeros(3, *graph.targets()["y"].family.shape).to(graph.like)
    with pytest.raises(ConfigError, match=message):
        log_marginal(graph, {"y": y})


def test_a_table_of_numbers_is_refused():
    graph = pair_of(Bernoulli((1,)), Normal((1,), scale=1.0), nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"^node 'y': its states cannot be listed; allowed: Bernoulli, Categorical"):
        marginal_kl(graph, graph)


def test_a_table_with_too_many_states_is_refused():
    graph = pair_of(Bernoulli((9,)), Bernoulli((8,)), nn.Linear(9, 8))
    with pytest.raises(ConfigError, match=rf"^nodes z, y have more than {MAX_STATES} states together$"):
        marginal_table(graph)


def test_too_many_pixels_are_sampled_instead():
    torch.manual_seed(0)
    graph = pair_of(Bernoulli((3,)), Bernoulli((784,)), nn.Linear(3, 784))
    assert marginal_divergence(graph, graph, graph.noise(6, leaves=True)).tolist() == [0.0] * 6
    with pytest.raises(ConfigError, match=r"^noise must hold that of target 'y': draw it with leaves=True$"):
        marginal_divergence(graph, graph, graph.noise(6))
