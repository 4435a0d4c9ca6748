"""Gradients through bits and classes against exact ones."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import (
    LSTM,
    Bernoulli,
    Categorical,
    Constant,
    DiscretizedLogistic,
    Graph,
    Latent,
    Normal,
    Scan,
    Target,
    gumbel_softmax,
    reinforce,
    straight_through,
)
from kdzoo.graphical_models.discrete import ancestry, discrete_ancestors
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.paired import Pair, node_divergence, paired_rollout, rollout_student, rollout_teacher
from kdzoo.graphical_models.tasks import hard_sample

TARGETS = ("y1", "y2")


def random_weights(graph, deviation=1.5):
    for parameter in graph.parameters():
        nn.init.normal_(parameter, std=deviation)
    return graph.double()


def chain(deviation=1.5):
    """Two targets, one of them in the middle: z1 -> z2 -> y1 -> z3 -> y2."""
    bit = Bernoulli((1,))
    nodes = [
        Latent("z1", bit, Constant(1)),
        Latent("z2", bit, nn.Linear(1, 1), "z1"),
        Target("y1", bit, nn.Linear(1, 1), "z2"),
        Latent("z3", bit, nn.Linear(1, 1), "y1"),
        Target("y2", bit, nn.Linear(1, 1), "z3"),
    ]
    return random_weights(Graph(nodes), deviation)


def short(family):
    """The beginning of the chain: z1 -> z2 -> y1."""
    size = family.raw_shape[0]
    nodes = [
        Latent("z1", family, Constant(size)),
        Latent("z2", family, nn.Linear(size, size), "z1"),
        Target("y1", Bernoulli((1,)), nn.Linear(size, 1), "z2"),
    ]
    return random_weights(Graph(nodes))


def drawn(graph, n):
    return {name: value.double() for name, value in graph.noise(n).items()}


def gradient(values, student, retain_graph=False):
    total = sum(value.sum() / len(value) for value in values.values())
    parameters = list(student.parameters())
    result = torch.autograd.grad(
        total, parameters, allow_unused=True, materialize_grads=True, retain_graph=retain_graph
    )
    return torch.cat([one.flatten() for one in result])


def of_latents(student):
    """Return which numbers of a gradient belong to latents."""
    latents = set(student.latents())
    nodes = [(node.name in latents, parameter.numel()) for node in student.nodes() for parameter in node.parameters()]
    return torch.cat([torch.full((count,), is_latent) for is_latent, count in nodes])


def divergences(pair, names=TARGETS):
    return {name: node_divergence(pair, name, "kl", "sum") for name in names}


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize(
    "family",
    [Bernoulli((4,)), Categorical((2, 3)), Categorical((5,), gumbel=True), Normal((4,)), DiscretizedLogistic((2,))],
    ids=["bernoulli", "categorical", "gumbel", "normal", "logistic"],
)
def test_straight_through_keeps_the_value(family):
    torch.manual_seed(0)
    raw, noise = torch.randn(50, *family.raw_shape, requires_grad=True), family.noise((50,))
    assert torch.equal(straight_through(family, raw, noise), family.sample(raw, noise))


@pytest.mark.parametrize(
    ("family", "probability"),
    [(Bernoulli((4,)), torch.sigmoid), (Categorical((2, 3)), lambda raw: raw.softmax(-1))],
    ids=["bernoulli", "categorical"],
)
def test_the_gradient_of_straight_through_is_that_of_the_probabilities(family, probability):
    raw, slopes = torch.randn(6, *family.shape, requires_grad=True), torch.randn(6, *family.shape)
    (result,) = torch.autograd.grad((slopes * straight_through(family, raw, family.noise((6,)))).sum(), raw)
    (expected,) = torch.autograd.grad((slopes * probability(raw)).sum(), raw)
    torch.testing.assert_close(result, expected)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_a_relaxed_value_converges_to_the_hard_one(seed, is_bit):
    generator = torch.Generator().manual_seed(seed)
    family = Bernoulli((7,)) if is_bit else Categorical((7,), gumbel=True)
    raw = 3 * torch.randn(5, 7, generator=generator, dtype=torch.double)
    noise = family.noise((5,), generator).double()
    relaxed = gumbel_softmax(1e-9)(family, raw, noise)
    torch.testing.assert_close(relaxed, family.sample(raw, noise))
    soft = gumbel_softmax(1.0)(family, raw, noise)
    assert 0 <= soft.min() <= soft.max() <= 1
    if not is_bit:
        torch.testing.assert_close(soft.sum(-1), torch.ones(5, dtype=torch.double))


@pytest.mark.parametrize("uniform", [0.0, 1.0], ids=["zero", "one"])
def test_a_relaxed_bit_is_finite_for_extreme_noise(uniform):
    raw = torch.tensor([[-90.0], [0.0], [90.0]], requires_grad=True)
    value = gumbel_softmax(0.5)(Bernoulli((1,)), raw, torch.full((3, 1), uniform))
    value.sum().backward()
    assert value.isfinite().all()
    assert raw.grad.isfinite().all()


def test_normal_values_are_not_relaxed():
    family = Normal((3,))
    raw, noise = torch.randn(4, 6), family.noise((4,))
    assert torch.equal(gumbel_softmax(1.0)(family, raw, noise), family.sample(raw, noise))


def test_invalid_options_of_the_relaxation_are_refused():
    with pytest.raises(ConfigError, match=r"^temperature must be finite and > 0, got 0$"):
        gumbel_softmax(0)
    with pytest.raises(ConfigError, match=r"needs Categorical values with gumbel=True, got Categorical\(shape=\(3,\)"):
        gumbel_softmax(1.0)(Categorical((3,)), torch.zeros(2, 3), torch.rand(2, 3))


def test_hard_values_leave_the_latents_without_a_gradient():
    torch.manual_seed(0)
    teacher, student = chain(), chain()
    noise = drawn(teacher, 64)
    result = gradient(divergences(paired_rollout(teacher, student, noise)), student)
    assert result[~of_latents(student)].abs().min() > 0
    assert result[of_latents(student)].abs().max() == 0


def test_biased_gradients_have_the_direction_of_the_exact_one():
    """Of the latents' parameters alone; those of the targets' have no bias. Measured with 4096 samples: 0.97, 0.99."""
    cosines = {"straight_through": [], "gumbel_softmax": []}
    for seed in range(60):
        torch.manual_seed(seed)
        teacher, student = chain(1.0), chain(1.0)
        expected = expected_divergences(teacher, student)
        upstream = of_latents(student)
        exact = gradient({name: expected[name] for name in TARGETS}, student)[upstream]
        noise = drawn(teacher, 512)
        trace = rollout_teacher(teacher, noise)
        for name, sampler in (("straight_through", straight_through), ("gumbel_softmax", gumbel_softmax(0.5))):
            pair = Pair(trace, rollout_student(student, trace, noise, sampler=sampler))
            result = gradient(divergences(pair), student)[upstream]
            cosines[name].append(nn.functional.cosine_similarity(result, exact, 0))
    means = {name: float(torch.stack(result).mean()) for name, result in cosines.items()}
    assert means["straight_through"] >= 0.8, means
    assert means["gumbel_softmax"] >= 0.8, means


# ---------------------------------------------------------------- the score function


def scored(teacher, student, names, *, rounds, rows, samples):
    """Return mean and standard error of the gradient over rounds of new noise."""
    result = []
    for _ in range(rounds):
        noise = drawn(teacher, rows)
        pair = paired_rollout(teacher, student, noise)
        terms = reinforce(divergences(pair, names), pair, teacher, student, samples=samples)
        result.append(gradient(terms, student))
    result = torch.stack(result)
    return result.mean(0), result.std(0) / rounds**0.5


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (chain, TARGETS),
        (lambda: short(Bernoulli((2,))), ("y1",)),
        (lambda: short(Categorical((3,))), ("y1",)),
        (chain, ("z2",)),
    ],
    ids=["bits", "pairs", "classes", "latent"],
)
def test_reinforce_is_unbiased(build, names):
    torch.manual_seed(0)
    teacher, student = build(), build()
    expected = expected_divergences(teacher, student)
    exact = gradient({name: expected[name] for name in names}, student)
    mean, error = scored(teacher, student, names, rounds=40, rows=512, samples=4)
    assert (error < 0.05).all()
    assert ((mean - exact).abs() <= 3 * error + 1e-12).all()


def test_reinforce_is_unbiased_with_a_continuous_latent_between():
    """The gradient is that of reading off the mean over the bit, for the same normal noise."""
    torch.manual_seed(0)

    def mixed():
        nodes = [
            Latent("b", Bernoulli((1,)), Constant(1)),
            Latent("c", Normal((1,)), nn.Linear(1, 2), "b"),
            Latent("d", Bernoulli((1,)), nn.Linear(1, 1), "c"),
            Target("y", Normal((1,), 1.0), nn.Linear(1, 1), "d"),
        ]
        return random_weights(Graph(nodes))

    teacher, student = mixed(), mixed()
    mean, error = scored(teacher, student, ("y",), rounds=60, rows=512, samples=4)
    noise = drawn(teacher, 20_000)
    exact = gradient({"y": over_two_bits(teacher, student, noise["c"])}, student)
    assert error.max() > 0
    assert ((mean - exact).abs() <= 3.5 * error + 0.004).all()
    assert exact[of_latents(student)].abs().max() > 0.05


def over_two_bits(teacher, student, eps):
    """Return the divergence of y, the two bits averaged by hand over the pieces of their uniform noise."""
    total = torch.zeros(len(eps), dtype=torch.double)
    ends = [graph.random_nodes()["b"].conditional.net.value.sigmoid()[0] for graph in (teacher, student)]
    for mass, bits in pieces(*ends):
        places = []
        for graph, bit in zip((teacher, student), bits, strict=True):
            latents = graph.latents()
            raw = latents["c"].conditional.net(torch.full_like(eps, bit))
            places.append(latents["d"].conditional.net(latents["c"].family.sample(raw, eps)).sigmoid()[:, 0])
        for more, others in pieces(*places):
            one, other = (
                graph.targets()["y"].conditional.net(torch.full((1, 1), float(bit), dtype=torch.double))[0, 0]
                for graph, bit in zip((teacher, student), others, strict=True)
            )
            total = total + mass * more * 0.5 * (one.detach() - other) ** 2
    return total


def pieces(p, q):
    """Yield the mass of each piece of [0, 1] with the bits of both models."""
    p = p.detach()
    yield torch.minimum(p, q), (1, 1)
    yield (p - q).relu(), (1, 0)
    yield (q - p).relu(), (0, 1)
    yield 1 - torch.maximum(p, q), (0, 0)


def test_the_values_of_reinforce_are_means_over_samples():
    torch.manual_seed(0)
    teacher, student = chain(), chain()
    pair = paired_rollout(teacher, student, drawn(teacher, 12))
    values = divergences(pair)
    result = reinforce(values, pair, teacher, student, samples=4)
    for name, value in values.items():
        torch.testing.assert_close(result[name], value.reshape(3, 4).mean(1))
    targets = ~of_latents(student)
    to_container = gradient(values, student, retain_graph=True)
    torch.testing.assert_close(gradient(result, student)[targets], to_container[targets])


def test_reinforce_gives_the_teacher_no_gradient_and_an_equal_student_no_loss():
    torch.manual_seed(0)
    teacher = chain()
    student = copy.deepcopy(teacher)
    pair = paired_rollout(teacher, student, drawn(teacher, 64))
    result = reinforce(divergences(pair), pair, teacher, student, samples=2)
    assert all((value == 0).all() for value in result.values())
    assert gradient(result, student).abs().max() < 1e-12
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_scores_of_certain_bits_are_finite():
    torch.manual_seed(0)
    teacher, student = chain(300.0).float(), chain(300.0).float()
    pair = paired_rollout(teacher, student, teacher.noise(256))
    result = reinforce(divergences(pair), pair, teacher, student, samples=2)
    assert gradient(result, student).isfinite().all()


def test_ancestors_end_at_the_targets():
    graph = chain()
    assert ancestry("y2", graph, ends=graph.targets()) == {"y2", "z3"}
    assert ancestry("y2", graph) == {"y2", "z3", "y1", "z2", "z1"}
    assert discrete_ancestors("y1", graph, graph) == ["z1", "z2"]
    assert discrete_ancestors("z1", graph) == []


def sequence():
    nodes = [Latent("z", Bernoulli((1,)), nn.Linear(2, 1), "state"), Target("y", Bernoulli((1,)), nn.Linear(1, 1), "z")]
    return Graph([Scan(nodes, LSTM(2, ("z",), 1), 3)])


def single(family):
    nodes = [
        Latent("z", family, Constant(*family.raw_shape)),
        Target("y", Normal((1,), 1.0), nn.Linear(family.shape[-1], 1), "z"),
    ]
    return Graph(nodes)


@pytest.mark.parametrize(
    ("graph", "name", "options", "message"),
    [
        (sequence(), "y", {}, r"before 'y' cannot be followed in a sequence \(Scan\)"),
        (single(Categorical((3,), gumbel=True)), "y", {}, r"node 'z': its values must be Bernoulli or Categorical"),
        (single(DiscretizedLogistic((2,))), "y", {}, r"node 'z': its values must be Bernoulli or Categorical"),
        (single(Bernoulli((2,))), "y", {"samples": 1}, r"^samples must be an integer >= 2, got 1$"),
        (single(Bernoulli((2,))), "y", {"samples": 4}, r"multiple of samples = 4, got 6"),
        (single(Bernoulli((2,))), "y", {"sampler": straight_through}, r"latent 'z' of the student must have hard"),
    ],
    ids=["sequence", "gumbel", "grid", "one", "remainder", "soft"],
)
def test_reinforce_refuses_invalid_arguments(graph, name, options, message):
    student = copy.deepcopy(graph)
    pair = paired_rollout(graph, student, graph.noise(6), sampler=options.get("sampler", hard_sample))
    values = {name: node_divergence(pair, name, "kl", "sum")}
    with pytest.raises(ConfigError, match=message):
        reinforce(values, pair, graph, student, samples=options.get("samples", 2))


def test_reinforce_refuses_models_with_different_latents():
    graph, other = single(Bernoulli((2,))), single(Bernoulli((3,)))
    pair = paired_rollout(graph, graph, graph.noise(6))
    with pytest.raises(ConfigError, match=r"latent 'z' has shape \(2,\) in the teacher and \(3,\)"):
        reinforce({"y": torch.zeros(6)}, pair, graph, other, samples=2)
