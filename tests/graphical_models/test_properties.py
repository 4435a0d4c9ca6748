"""Properties of the surrogate loss: it is a bound, exact at equality, and has known losses as special cases."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.functional import soft_target_kl
from kdzoo.graphical_models import (
    LSTM,
    STATE,
    Bernoulli,
    Categorical,
    Constant,
    Delta,
    DiscretizedLogistic,
    GateInput,
    Graph,
    Hidden,
    Input,
    Latent,
    Normal,
    Scan,
    Target,
)
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.families import positive_scale
from kdzoo.graphical_models.marginal import marginal_kl
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from tests.reference import graphs as reference

# ---------------------------------------------------------------- random models


class Affine(nn.Linear):
    """An affine mean and a deviation that does not depend on it."""

    def __init__(self, before, after):
        super().__init__(before, after)
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)
        self.deviation = nn.Parameter(torch.randn(after) - 0.5)

    def forward(self, value):
        mean = super().forward(value)
        return torch.cat([mean, self.deviation.expand_as(mean)], -1)


def normal_chain(sizes):
    """Return z_L -> ... -> z_1 -> y of the given sizes with random weights."""
    top = Constant(2 * sizes[0])
    nn.init.normal_(top.value)
    nodes = [Latent("z0", Normal((sizes[0],)), top)]
    for i, (before, after) in enumerate(pairwise(sizes[:-1]), 1):
        nodes.append(Latent(f"z{i}", Normal((after,)), Affine(before, after), f"z{i - 1}"))
    nodes.append(Target("y", Normal((sizes[-1],)), Affine(sizes[-2], sizes[-1]), f"z{len(sizes) - 2}"))
    return Graph(nodes).double()


def binary_chain():
    """Return z1 -> z2 -> y1 -> z3 -> y2, one bit each, with random chances."""

    def net():
        layer = nn.Linear(1, 1)
        nn.init.normal_(layer.weight, std=3)
        nn.init.normal_(layer.bias, std=2)
        return layer

    top, bit = Constant(1), Bernoulli((1,))
    nn.init.normal_(top.value, std=2)
    nodes = [Latent("z1", bit, top), Latent("z2", bit, net(), "z1"), Target("y1", bit, net(), "z2")]
    return Graph([*nodes, Latent("z3", bit, net(), "y1"), Target("y2", bit, net(), "z3")]).double()


class Given(nn.Module):
    """An affine net whose weights, and those of a deviation, are a part of its first argument: a row is a model."""

    def __init__(self, start, before, after, *, deviation):
        super().__init__()
        self.sizes = [start, before * after, after, after * deviation]
        self.shape = (after, before)

    def parts(self, weights):
        """Return matrix, bias and raw deviation of each row."""
        _, matrix, bias, raw, _ = weights.split([*self.sizes, weights.shape[1] - sum(self.sizes)], 1)
        return matrix.unflatten(1, self.shape), bias, raw

    def forward(self, weights, value):
        matrix, bias, raw = self.parts(weights)
        return torch.cat([bias + (matrix @ value[..., None]).squeeze(-1), raw], 1)


def given_chain(families, start):
    """Return a chain of nodes of the given families, whose weights are the input ``w`` from ``start`` to the end."""
    nodes, before = [Input("w", Normal((400,), scale=1.0))], None
    for name, family in families.items():
        size, deviation = family.shape[0], isinstance(family, Normal)
        net = Given(start, before.family.shape[0] if before else 0, size, deviation=deviation)
        start = sum(net.sizes)
        kind = Target if name.startswith("y") else Latent
        nodes.append(kind(name, family, net if before else First(net), ("w", before.name) if before else "w"))
        before = nodes[-1]
    return Graph(nodes).double(), start


class First(nn.Module):
    """The net of a node without parents other than the weights."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def parts(self, weights):
        return self.net.parts(weights)

    def forward(self, weights):
        return self.net(weights, weights[:, :0])


def parts_of(graph, weights):
    """Return matrix, bias and raw deviation of every node but the input, for one row of weights [1, 400]."""
    return [node.conditional.net.parts(weights) for node in graph.random_nodes().values()]


def find_layers(graph, weights):
    """Return matrix (None at the top), bias and deviation of every node as arrays."""
    return [
        (matrix[0].numpy() if matrix.shape[2] else None, bias[0].numpy(), positive_scale(raw)[0].numpy())
        for matrix, bias, raw in parts_of(graph, weights)
    ]


def chances_of(graph, weights):
    """Return the chance of 1 of the first bit, and those of the others for a parent of 0 and of 1."""
    (_, first, _), *rest = parts_of(graph, weights)
    return [
        float(first.sigmoid()),
        *([float(bias.sigmoid()), float((bias + matrix[0]).sigmoid())] for matrix, bias, _ in rest),
    ]


def compared(families, rows, spread):
    """Yield the weights, both models, the surrogate loss and KL of some pairs of models."""
    teacher, start = given_chain(families, 0)
    student, _ = given_chain(families, start)
    weights = spread * torch.randn(rows, 400, dtype=torch.double)
    with torch.no_grad():
        means = expected_divergences(teacher, student, {"w": weights})
        bounds = sum(means[name] for name in student.targets())
        kls = marginal_kl(teacher, student, {"w": weights})
    for row, bound, kl in zip(weights, bounds.tolist(), kls.tolist(), strict=True):
        yield teacher, student, row[None], bound, kl


def surrogate(teacher, student, **options):
    """Return the exact surrogate loss, without gradients."""
    with torch.no_grad():
        result = expected_divergences(teacher, student, **options)
    return float(sum(result[name] for name in student.targets()))


def exact_kl(teacher, student):
    with torch.no_grad():
        return float(marginal_kl(teacher, student))


# ---------------------------------------------------------------- bounds


def test_the_surrogate_loss_of_500_normal_chains_bounds_kl_and_the_gap_is_that_of_the_noise():
    """Chains of one to four layers and one to four dimensions."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    errors, gaps = [], []
    for i in range(50):
        sizes = rng.integers(1, 5, size=2 + i % 4).tolist()
        families = {f"z{j}": Normal((size,)) for j, size in enumerate(sizes[:-1])} | {"y": Normal((sizes[-1],))}
        for teacher, student, weights, bound, kl in compared(families, 10, spread=1.0):
            layers = find_layers(teacher, weights), find_layers(student, weights)
            truth = reference.normal_kl(*reference.moments(layers[0]), *reference.moments(layers[1]))
            expected = np.array([reference.surrogate(*layers), truth, reference.posterior_gap(*layers)])
            errors.append(np.abs([bound, kl, bound - kl] - expected) / (1 + expected[0]))
            gaps.append(bound - kl)
    assert len(gaps) == 500
    assert min(gaps) >= 0
    assert np.max(errors) <= 1e-9


def test_the_surrogate_loss_of_500_binary_chains_bounds_kl_and_the_gap_is_that_of_the_noise():
    torch.manual_seed(0)
    families = {name: Bernoulli((1,)) for name in ("z1", "z2", "y1", "z3", "y2")}
    errors, gaps = [], []
    for teacher, student, weights, bound, kl in compared(families, 500, spread=2.0):
        expected = reference.binary_chain(chances_of(teacher, weights), chances_of(student, weights))
        errors.append(np.abs([bound, kl, bound - kl] - np.array(expected)))
        gaps.append(bound - kl)
    assert len(gaps) == 500
    assert min(gaps) >= 0
    assert np.max(errors) <= 1e-9


@pytest.mark.parametrize("chain", [lambda: normal_chain([3, 2, 4]), binary_chain], ids=["normal", "binary"])
def test_local_distillation_bounds_kl_too_and_neither_bound_is_always_lower(chain):
    torch.manual_seed(0)
    lower = []
    for _ in range(60):
        teacher = chain()
        student = copy.deepcopy(teacher)
        for parameter in student.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        with torch.no_grad():
            local = float(sum(expected_divergences(teacher, student, latents_from="teacher").values()))
        kl, bound = exact_kl(teacher, student), surrogate(teacher, student)
        assert local >= kl
        lower.append(bound < local)
    assert 0 < sum(lower) < 60


@pytest.mark.parametrize("chain", [lambda: normal_chain([3, 4, 5]), binary_chain], ids=["normal", "binary"])
def test_the_bound_is_tight_where_latents_have_no_effect(chain):
    torch.manual_seed(1)
    teacher, student = chain(), chain()
    for graph in (teacher, student):
        for name, node in graph.targets().items():
            if name != "y1":
                nn.init.zeros_(node.conditional.net.weight)
        if "y1" in graph.targets():
            nn.init.zeros_(graph.targets()["y1"].conditional.net.weight)
    kl = exact_kl(teacher, student)
    assert kl > 1e-3
    assert surrogate(teacher, student) == pytest.approx(kl, rel=1e-12)


def test_a_student_with_rotated_noise_has_the_teachers_marginal_and_a_positive_loss():
    torch.manual_seed(0)
    weight = nn.Linear(4, 5)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.double)).Q

    def model(turn):
        net = nn.Sequential(nn.Linear(4, 4, bias=False), copy.deepcopy(weight)).double()
        net[0].weight.data = turn
        return Graph([Latent("z", Normal((4,), scale=1.0)), Target("y", Normal((5,), scale=0.5), net, "z")]).double()

    teacher, student = model(torch.eye(4, dtype=torch.double)), model(rotation)
    assert exact_kl(teacher, student) == pytest.approx(0, abs=1e-12)
    assert surrogate(teacher, student) > 0.1


def test_the_squared_w2_distance_is_a_bound_and_the_plain_distance_is_not():
    """Equal chances of the pairs of points (0, 0) and (0, 1)."""
    pairs = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    graphs = [
        Graph([Latent("z", Bernoulli((1,))), Target("y", Delta((1,)), nn.Linear(1, 1, bias=False), "z")])
        for _ in range(2)
    ]
    for graph, weight in zip(graphs, (0.0, 1.0), strict=True):
        nn.init.constant_(graph.targets()["y"].conditional.net.weight, weight)
    pair = paired_rollout(*graphs, {"z": torch.tensor([[0.75], [0.25]])})
    squares = node_divergence(pair, "y", "w2", "sum").detach()
    assert squares.tolist() == (pairs[:, 0] - pairs[:, 1]).square().tolist()
    of_mixtures = reference.quantile_distance([1.0, 0.0], [0.5, 0.5], [0.0, 1.0])
    assert float(squares.mean()) == pytest.approx(of_mixtures)
    assert of_mixtures**0.5 == pytest.approx(0.7071, abs=1e-4)
    assert of_mixtures**0.5 > float(squares.sqrt().mean())


# ---------------------------------------------------------------- equality


def of_family(family):
    """Return start -> latent -> inner target -> latent -> target, all but the start of one family."""
    size, raw = family.shape[-1], family.raw_shape[0]
    return Graph(
        [
            Latent("start", Normal((1,), scale=1.0)),
            Latent("z", family, nn.Linear(1, raw), "start"),
            Target("inner", family, nn.Linear(size, raw), "z"),
            Latent("later", family, nn.Linear(size, raw), "inner"),
            Target("y", family, nn.Linear(size, raw), "later"),
        ]
    )


def sequence_of_family(family):
    size, raw = family.shape[-1], family.raw_shape[0]
    nodes = [
        Latent("start", Normal((4,)), nn.Linear(4, 8), STATE),
        Latent("z", family, nn.Linear(4, raw), "start"),
        Target("y", family, nn.Linear(size, raw), "z"),
        Hidden("gate_input", GateInput(size, 4), "y"),
    ]
    return Graph([Scan(nodes, LSTM(4, ("gate_input", "z"), size, has_gate_input=True), 12)])


FAMILIES = {
    "normal": (Normal((3,)), ("kl", "w2", "mmd")),
    "normal of fixed deviation": (Normal((3,), scale=0.3), ("kl", "w2", "mmd")),
    "bits": (Bernoulli((3,)), ("kl", "w2", "mmd")),
    "classes": (Categorical((5,)), ("kl", "w2", "mmd")),
    "classes by gumbel": (Categorical((5,), gumbel=True), ("kl", "w2", "mmd")),
    "grid": (DiscretizedLogistic((3,)), ("kl", "w2", "mmd")),
    "points": (Delta((3,)), ("w2", "mmd")),
}


@pytest.mark.parametrize("latents_from", ["student", "teacher"])
@pytest.mark.parametrize(("model", "bound"), [(of_family, 0.0), (sequence_of_family, 1e-12)], ids=["plain", "sequence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_a_student_equal_to_its_teacher_is_zero(family, model, bound, latents_from):
    torch.manual_seed(0)
    family, kinds = FAMILIES[family]
    teacher = model(family)
    for parameter in teacher.parameters():
        nn.init.normal_(parameter)
    teacher.double()
    pair = paired_rollout(teacher, copy.deepcopy(teacher), teacher.noise(20), latents_from=latents_from)
    for name in ("z", "y"):
        for kind in kinds:
            assert float(node_divergence(pair, name, kind, "sum").detach().abs().max()) <= bound


# ---------------------------------------------------------------- samples and gradients


@pytest.mark.parametrize("chain", [lambda: normal_chain([3, 2, 4]), binary_chain], ids=["normal", "binary"])
@pytest.mark.parametrize("latents_from", ["student", "teacher"])
def test_the_mean_over_drawn_noise_is_the_exact_one(chain, latents_from):
    torch.manual_seed(0)
    teacher, student, n = chain(), chain(), 40_000
    with torch.no_grad():
        exact = expected_divergences(teacher, student, latents_from=latents_from)
        noise = teacher.noise(n, generator=torch.Generator().manual_seed(3))
        pair = paired_rollout(teacher, student, noise, latents_from=latents_from)
        for name in teacher.random_nodes():
            values = node_divergence(pair, name, "kl", "sum")
            error = float(values.std()) / n**0.5
            assert abs(float(values.mean() - exact[name])) <= 4 * error + 1e-12


def test_no_gradient_and_no_statistics_reach_the_teacher():
    torch.manual_seed(0)

    def model():
        net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 4))
        return Graph([Latent("z", Normal((3,)), Constant(6)), Target("y", Normal((4,), scale=1.0), net, "z")])

    teacher, student = model().train(), model().train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    inside = student.targets()["y"].conditional.net[1].running_mean.clone()
    pair = paired_rollout(teacher, student, teacher.noise(16))
    sum(node_divergence(pair, name, "kl", "sum").mean() for name in ("z", "y")).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert not torch.equal(student.targets()["y"].conditional.net[1].running_mean, inside)


# ---------------------------------------------------------------- special cases


def test_the_loss_without_latents_is_logit_distillation():
    torch.manual_seed(0)
    teacher, student = (
        Graph([Input("x", Normal((6,), scale=1.0)), Target("y", Categorical((5,)), nn.Linear(6, 5), "x")])
        for _ in range(2)
    )
    x = torch.randn(7, 6)
    pair = paired_rollout(teacher, student, {}, {"x": x})
    logits = [graph.targets()["y"].conditional.net(x) for graph in (student, teacher)]
    expected = soft_target_kl(*logits, temperature=1)
    torch.testing.assert_close(node_divergence(pair, "y", "kl", "sum").double(), expected, atol=1e-6, rtol=0)


def tokens(hidden, steps=5):
    nodes = [
        Target("y", Categorical((3,)), nn.Linear(hidden, 3), STATE, source="input"),
        Hidden("gate_input", GateInput(3, hidden), "y"),
    ]
    return Graph([Scan(nodes, LSTM(hidden, "gate_input", has_gate_input=True), steps)]).double()


def test_the_loss_of_tokens_is_token_level_distillation_on_the_teachers_samples():
    torch.manual_seed(0)
    teacher, student = tokens(6), tokens(4)
    for parameter in teacher.parameters():
        parameter.data *= 3
    noise = teacher.noise(8)
    pair = paired_rollout(teacher, student, noise)
    samples = pair.teacher.values["y"]
    expected = 0
    for t in range(samples.shape[1]):
        logits = []
        for graph in (student, teacher):
            state = graph.scan.carry.initial(8, samples)
            for before in range(t):
                drive = graph.scan.nodes[1].conditional.net(samples[:, before])
                state = graph.scan.carry(state, drive)
            logits.append(graph.scan.nodes[0].conditional.net(state[0]))
        expected = expected + soft_target_kl(*logits, temperature=1)
    torch.testing.assert_close(node_divergence(pair, "y", "kl", "sum"), expected, atol=1e-6, rtol=0)


def test_the_expected_loss_of_tokens_is_the_divergence_of_sequences():
    torch.manual_seed(0)
    teacher, student = tokens(6, steps=4), tokens(4, steps=4)
    for parameter in teacher.parameters():
        parameter.data *= 3
    kl = exact_kl(teacher, student)
    assert surrogate(teacher, student) == pytest.approx(kl, rel=1e-10)
    with torch.no_grad():
        values = node_divergence(paired_rollout(teacher, student, teacher.noise(20_000)), "y", "kl", "sum")
    assert abs(float(values.mean()) - kl) <= 4 * float(values.std()) / 20_000**0.5


def test_the_loss_of_point_mass_latents_is_that_of_fitnets():
    torch.manual_seed(0)

    def model(width):
        before = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))
        return Graph(
            [
                Input("x", Normal((6,), scale=1.0)),
                Latent("hint", Delta((4,)), before, "x"),
                Target("y", Categorical((5,)), nn.Linear(4, 5), "hint"),
            ]
        )

    teacher, student, x = model(20), model(3), torch.randn(7, 6)
    pair = paired_rollout(teacher, student, {}, {"x": x})
    hints = [graph.latents()["hint"].conditional.net(x) for graph in (teacher, student)]
    torch.testing.assert_close(
        node_divergence(pair, "hint", "w2", "sum"), (hints[0] - hints[1]).square().sum(1), atol=1e-6, rtol=1e-6
    )
    logits = [
        graph.targets()["y"].conditional.net(hint)
        for graph, hint in zip((student, teacher), reversed(hints), strict=True)
    ]
    expected = soft_target_kl(*logits, temperature=1).float()
    torch.testing.assert_close(node_divergence(pair, "y", "kl", "sum"), expected, atol=1e-6, rtol=0)


def test_the_loss_of_point_mass_targets_is_the_paired_error_of_two_generators():
    torch.manual_seed(0)

    def model(width):
        net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 6))
        return Graph([Latent("z", Normal((3,), scale=1.0)), Target("y", Delta((6,)), net, "z")])

    teacher, student, z = model(20), model(4), torch.randn(9, 3)
    pair = paired_rollout(teacher, student, {"z": z})
    images = [graph.targets()["y"].conditional.net(z) for graph in (teacher, student)]
    expected = (images[0] - images[1]).square().sum(1)
    torch.testing.assert_close(node_divergence(pair, "y", "w2", "sum"), expected, atol=1e-6, rtol=1e-6)


def test_with_the_teachers_latents_each_layer_is_distilled_separately():
    torch.manual_seed(0)
    teacher, student = normal_chain([3, 2, 4]), normal_chain([3, 2, 4])
    noise = {name: value.double() for name, value in teacher.noise(6).items()}
    pair = paired_rollout(teacher, student, noise, latents_from="teacher")
    for name, parent in (("z1", "z0"), ("y", "z1")):
        parents = pair.teacher.values[parent]
        raws = [graph.random_nodes()[name].conditional.net(parents) for graph in (teacher, student)]
        one, other = (
            torch.distributions.Normal(raw.chunk(2, 1)[0], positive_scale(raw.chunk(2, 1)[1])) for raw in raws
        )
        expected = torch.distributions.kl_divergence(one, other).sum(1)
        torch.testing.assert_close(node_divergence(pair, name, "kl", "sum"), expected, atol=1e-10, rtol=1e-10)
