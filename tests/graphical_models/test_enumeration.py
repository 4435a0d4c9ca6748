"""Exact expectations over discrete latents, against sums over the intervals of the noise and drawn values."""

import copy
from itertools import pairwise

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
    Delta,
    DiscretizedLogistic,
    Graph,
    Hidden,
    Input,
    Latent,
    Normal,
    Scan,
    Target,
    enumerated_divergences,
)
from kdzoo.graphical_models.paired import Pair, node_divergence, paired_rollout, rollout_student, rollout_teacher

BIT = Bernoulli((1,))
BITS = [torch.zeros(1, 1).double(), torch.ones(1, 1).double()]


class Concatenated(nn.Linear):
    """A linear map of several values side by side."""

    def forward(self, *values):
        return super().forward(torch.cat(values, -1))


def prepared(nodes):
    graph = Graph(nodes)
    for parameter in graph.parameters():
        nn.init.normal_(parameter, std=1.5)
    return graph.double()


def chain():
    return prepared(
        [
            Latent("a", BIT, Constant(1)),
            Latent("b", BIT, Concatenated(1, 1), "a"),
            Target("y", Normal((2,), 0.7), Concatenated(1, 2), "b"),
        ]
    )


def skipping():
    """Every node depends on all before it, by way of a deterministic one."""
    return prepared(
        [
            Latent("a", BIT, Constant(1)),
            Hidden("h", Concatenated(1, 2), "a"),
            Latent("b", BIT, Concatenated(3, 1), ("a", "h")),
            Target("y", Normal((2,)), Concatenated(4, 4), ("a", "b", "h")),
        ]
    )


def conditioned():
    """An input, a normal latent between bits, and a latent without an effect on the target."""
    return prepared(
        [
            Input("x", Normal((2,), 1.0)),
            Latent("a", BIT, Concatenated(2, 1), "x"),
            Latent("c", Normal((1,)), Concatenated(1, 2), "a"),
            Latent("b", BIT, Concatenated(3, 1), ("c", "x")),
            Latent("idle", BIT, Concatenated(1, 1), "b"),
            Target("y", BIT, Concatenated(2, 1), ("b", "c")),
        ]
    )


def drawn(graph, n):
    noise = {name: value.double() for name, value in graph.noise(n).items()}
    inputs = {name: value.double() for name, value in graph.draw_inputs(n).items()}
    return noise, inputs


def flat_gradient(value, model):
    result = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in result])


def by_intervals(teacher, student, noise, inputs, teachers=None):
    """Return the expected KL of one sample's ``y``: the uniform noise of one bit after the other is cut into intervals.

    Args:
        teacher: Model with the nodes of the student.
        student: Model whose last node is ``y``.
        noise: Noise of normal latents.
        inputs: Values of the inputs.
        teachers: Values of other targets, given to both models; the teacher's probability of them is a factor.
    """
    nodes = list(zip(teacher.nodes(), student.nodes(), strict=True))
    teachers = teachers or {}

    def rest(number, values, own):
        def go_on(first, second):
            return rest(number + 1, {**values, node.name: first}, {**own, node.name: second})

        partner, node = nodes[number]
        if isinstance(node, Input):
            return go_on(inputs[node.name], inputs[node.name])
        one = net_of(partner, values).detach()
        other = net_of(node, own)
        if isinstance(node, Hidden):
            return go_on(one, other)
        if node.name == "y":
            pair = partner.family.distribution(one), node.family.distribution(other)
            return torch.distributions.kl_divergence(*pair).sum()
        if node.name in teachers:
            value = teachers[node.name]
            return partner.family.distribution(one).log_prob(value).sum().exp() * go_on(value, value)
        if isinstance(node.family, Normal):
            return go_on(partner.family.sample(one, noise[node.name]), node.family.sample(other, noise[node.name]))
        p, q = one.sigmoid(), other.sigmoid()
        ends = [torch.zeros_like(p), torch.minimum(p, q), torch.maximum(p, q), torch.ones_like(p)]
        total = torch.zeros((), dtype=torch.double)
        for low, high in pairwise(ends):
            middle = (low + high) / 2
            total = total + (high - low).sum() * go_on((middle < p).double(), (middle < q).double())
        return total

    return rest(0, {}, {})


def net_of(node, values):
    given = [values[name] for name in node.conditional.parents]
    return node.conditional(given, 1, torch.zeros((), dtype=torch.double))


@pytest.mark.parametrize("build", [chain, skipping, conditioned])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_expectation_is_the_sum_over_the_intervals_of_the_noise(build, seed):
    torch.manual_seed(seed)
    teacher, student = build(), build()
    noise, inputs = drawn(teacher, 3)
    result = enumerated_divergences(teacher, student, rollout_teacher(teacher, noise, inputs), noise, inputs)["y"]
    rows = [
        ({k: v[i : i + 1] for k, v in noise.items()}, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(3)
    ]
    expected = torch.stack([by_intervals(teacher, student, *row) for row in rows])
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    exact = flat_gradient(expected.sum(), student)
    torch.testing.assert_close(flat_gradient(result.sum(), student), exact, rtol=1e-10, atol=1e-12)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def telling(family=BIT):
    """The target in the middle depends on the latents that the last one depends on too."""
    return prepared(
        [
            Latent("a", BIT, Constant(1)),
            Latent("b", BIT, Concatenated(1, 1), "a"),
            Target("m", family, Concatenated(2, 1), ("a", "b")),
            Target("y", Normal((1,), 0.7), Concatenated(2, 1), ("b", "m")),
        ]
    )


def test_states_are_weighted_by_the_density_of_given_targets():
    torch.manual_seed(0)
    teacher, student = telling(), telling()
    total, expected = 0.0, 0.0
    for value in BITS:
        noise, _ = drawn(teacher, 1)
        with torch.no_grad():
            trace = teacher.rollout(noise, forced={"m": value})
            states = [teacher.rollout({}, forced={"a": a, "b": b, "m": value}) for a in BITS for b in BITS]
            probability = sum(
                sum(one.distributions[name].log_prob(one.values[name]) for name in "abm").exp() for one in states
            )
        total = total + probability[0, 0] * enumerated_divergences(teacher, student, trace, noise, nodes=["y"])["y"][0]
        expected = expected + by_intervals(teacher, student, noise, {}, {"m": value})
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    exact = flat_gradient(expected, student)
    torch.testing.assert_close(flat_gradient(total, student), exact, rtol=1e-10, atol=1e-12)


def of_all_kinds():
    """Pairs of bits, classes, a normal latent, and a target in the middle that tells of the first two."""
    return prepared(
        [
            Latent("a", Bernoulli((2,)), Constant(2)),
            Latent("b", Categorical((3,)), Concatenated(2, 3), "a"),
            Target("m", Normal((2,), 1.0), Concatenated(3, 2), "b"),
            Latent("c", Normal((2,)), Concatenated(4, 4), ("a", "m")),
            Latent("d", Categorical((1, 3)), Rows(2, 3), "c"),
            Hidden("e", Flat(3, 3), "d"),
            Target("y", Bernoulli((4,)), Concatenated(5, 4), ("e", "m")),
        ]
    )


class Rows(nn.Linear):
    """A linear map to one row of classes."""

    def forward(self, value):
        return super().forward(value).unsqueeze(1)


class Flat(nn.Linear):
    """A linear map of one row of classes."""

    def forward(self, value):
        return super().forward(value.flatten(1))


@pytest.mark.parametrize(
    ("kind", "reduction"), [("kl", "sum"), ("w2", "mean"), ("mmd", "sum")], ids=["kl", "w2", "mmd"]
)
def test_the_expectation_is_the_mean_of_drawn_values(kind, reduction):
    torch.manual_seed(0)
    teacher, student = of_all_kinds(), of_all_kinds()
    noise, _ = drawn(teacher, 2000)
    trace = rollout_teacher(teacher, noise)
    pair = Pair(trace, rollout_student(student, trace, noise))
    exact = enumerated_divergences(
        teacher, student, trace, noise, nodes=["b", "m", "c", "y"], kind=kind, reduction=reduction
    )
    for name, value in exact.items():
        difference = node_divergence(pair, name, kind, reduction) - value
        assert difference.mean().abs() <= 4 * difference.std() / len(difference) ** 0.5, name
        assert difference.std() > 0


def test_the_gradient_equals_that_of_the_mean_of_drawn_values():
    """Along a line in the space of weights, the expectation of hard values has the slope of the exact gradient."""
    torch.manual_seed(0)
    teacher, student = of_all_kinds(), of_all_kinds()
    noise, _ = drawn(teacher, 40_000)
    trace = rollout_teacher(teacher, noise)
    subset = {name: value[:2000] for name, value in noise.items()}
    total = sum(
        value.mean()
        for value in enumerated_divergences(teacher, student, rollout_teacher(teacher, subset), subset).values()
    )
    slope = flat_gradient(total, student)
    step = 0.05 * slope / slope.norm()
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(student)
        numbers = nn.utils.parameters_to_vector(student.parameters()) + sign * step
        nn.utils.vector_to_parameters(numbers.detach(), moved.parameters())
        pair = Pair(trace, rollout_student(moved, trace, noise))
        values.append(sum(node_divergence(pair, name, "kl", "sum") for name in ("m", "y")).detach())
    measured = (values[0] - values[1]) / 0.1
    assert abs(measured.mean() - slope.norm()) <= 0.05 * slope.norm() + 4 * measured.std() / len(measured) ** 0.5


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_the_expectation_is_zero_only_for_an_equal_student(seed):
    torch.manual_seed(seed)
    teacher, student = skipping(), skipping()
    noise, _ = drawn(teacher, 2)
    trace = rollout_teacher(teacher, noise)
    assert (enumerated_divergences(teacher, copy.deepcopy(teacher), trace, noise)["y"].abs() < 1e-12).all()
    assert (enumerated_divergences(teacher, student, trace, noise)["y"] >= 0).all()


def test_without_discrete_latents_the_expectation_is_the_divergence():
    torch.manual_seed(0)
    nodes = [Latent("z", Normal((2,), 1.0)), Target("y", Normal((3,), 0.5), nn.Linear(2, 3), "z")]
    teacher, student = prepared(nodes), prepared(copy.deepcopy(nodes))
    noise, _ = drawn(teacher, 5)
    pair = paired_rollout(teacher, student, noise)
    result = enumerated_divergences(teacher, student, pair.teacher, noise)["y"]
    torch.testing.assert_close(result, node_divergence(pair, "y", "kl", "sum"))


def test_certain_bits_have_finite_values_and_gradients():
    torch.manual_seed(0)
    teacher, student = skipping().float(), skipping().float()
    with torch.no_grad():
        for graph, number in ((teacher, 200.0), (student, -200.0)):
            graph.latents()["a"].conditional.net.value.fill_(number)
    noise = teacher.noise(4)
    value = enumerated_divergences(teacher, student, rollout_teacher(teacher, noise), noise)["y"]
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert flat_gradient(value.sum(), student).isfinite().all()


def test_the_modes_of_both_models_are_kept():
    torch.manual_seed(0)
    teacher, student = chain().train(), chain().eval()
    noise, _ = drawn(teacher, 2)
    enumerated_divergences(teacher, student, rollout_teacher(teacher, noise), noise)
    assert teacher.training
    assert not student.training


def of_one(family, net=None):
    net = net or nn.Linear(family.shape[-1], 1)
    return Graph([Latent("z", family, Constant(*family.raw_shape)), Target("y", Normal((1,), 1.0), net, "z")])


def sequence():
    nodes = [Latent("z", BIT, Concatenated(2, 1), "state"), Target("y", BIT, Concatenated(1, 1), "z")]
    return Graph([Scan(nodes, LSTM(2, ("z",), 1), 3)])


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (of_one(Bernoulli((7,))), {}, r"^node 'y': z have 16384 pairs of states; max_pairs is 4096$"),
        (of_one(Bernoulli((2,))), {"max_pairs": 15}, r"^node 'y': z have 16 pairs of states; max_pairs is 15$"),
        (of_one(BIT), {"max_pairs": 0}, r"^max_pairs must be an integer >= 1, got 0$"),
        (of_one(BIT), {"kind": "tv"}, r"^node 'y': divergence must be one of kl, w2, mmd, logits, got 'tv'$"),
        (of_one(Categorical((3,), gumbel=True)), {}, r"^node 'z': its values must be Bernoulli or Categorical without"),
        (of_one(DiscretizedLogistic((2,))), {}, r"^node 'z': its states cannot be listed"),
        (sequence(), {}, r"before 'y' cannot be followed in a sequence \(Scan\)"),
        (
            telling(Delta((1,))).float(),
            {"nodes": ["y"]},
            r"^node 'y': 'm' is a Delta, of which the latents before both",
        ),
    ],
    ids=["many", "limit", "none", "kind", "gumbel", "grid", "sequence", "point"],
)
def test_invalid_arguments_are_refused(graph, options, message):
    noise = graph.noise(3)
    trace = rollout_teacher(graph, noise)
    with pytest.raises(ConfigError, match=message):
        enumerated_divergences(graph, copy.deepcopy(graph), trace, noise, **options)
