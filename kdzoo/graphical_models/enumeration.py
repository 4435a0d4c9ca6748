"""Divergences of two models' nodes as exact expectations over their discrete latents, with exact gradients.

A node's distribution depends on the latents before it, up to the targets, whose values are given. Each pair of states
of these latents, the teacher's and the student's, has the mass of the uniform noise that leads to both. For a bit, the
masses of (1, 1), (1, 0), (0, 1) and (0, 0) are min(p, q), max(p - q, 0), max(q - p, 0) and 1 - max(p, q), where p and q
are the two models' probabilities of 1. The networks are called once per state of one model, the divergence is computed
once per pair.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.discrete import ancestry, discrete_ancestors
from kdzoo.graphical_models.divergences import per_sample
from kdzoo.graphical_models.graph import Graph, Trace, Values
from kdzoo.graphical_models.paired import Pair, check_compatible, node_divergence
from kdzoo.graphical_models.states import count_rows, enumerate_states, noise_interval
from kdzoo.graphical_models.tasks import RolloutOptions, node_tasks


def enumerated_divergences(
    teacher: Graph,
    student: Graph,
    trace: Trace,
    noise: Values,
    inputs: Values | None = None,
    *,
    nodes: Collection[str] | None = None,
    kind: str = "kl",
    reduction: str = "sum",
    max_pairs: int = 2**12,  # 6 bits in each model
) -> dict[str, Tensor]:
    """Return the expected divergences of nodes over the discrete latents before them, ``[b]`` by node.

    Everything else stays as it is rolled out: inputs, the noise of continuous latents, and the teacher's values of
    targets. If these targets depend on the latents, states are weighted by the density that they give to the targets.
    The networks process many states in one call, so a sample's values must not depend on the other samples.

    Args:
        teacher: The teacher; it gets no gradient.
        student: The student, with the same targets and latents.
        trace: Teacher's rollout, a result of :func:`kdzoo.graphical_models.paired.rollout_teacher`.
        noise: Noise by node on which the teacher was rolled out.
        inputs: Values of the inputs by node.
        nodes: Names of targets or latents; None: all targets.
        kind: Name of the divergence.
        reduction: ``sum`` or ``mean`` over the elements of a node's value.
        max_pairs: Largest number of pairs of states for one node and sample, >= 1. Memory grows in proportion.

    Raises:
        ConfigError: If a model has a sequence, the models are not compatible, a latent's values are not quantiles of
            one uniform number, a node has too many pairs of states, or a target that depends on them has no density.
    """
    validation.integer("max_pairs", max_pairs)
    check_compatible(teacher, student)
    given = {**(inputs or {}), **{name: trace.values[name] for name in student.targets() if name in trace.values}}
    # Only the noise of latents: targets have the teacher's values, and leaves are compared by their distributions.
    latent_noise = {name: noise[name].to(trace.raw[name]) for name in student.latents() if name in noise}
    expected = {}
    for name in student.targets() if nodes is None else nodes:
        latents = discrete_ancestors(name, teacher, student)
        states = enumerate_states(student, latents)
        count = count_rows(states)
        if count**2 > max_pairs:
            raise ConfigError(
                f"node {name!r}: {', '.join(latents)} have {count**2} pairs of states; max_pairs is {max_pairs}"
            )
        rows = _rows(given, states, latent_noise, latents, len(trace.raw[name]))
        expected[name] = _expected_divergence(name, teacher, student, rows, kind, reduction)
    return expected


@dataclass(frozen=True)
class _Rows:
    """Values for each sample and each state: sample i in state j is row ``i * states + j``.

    Attributes:
        values: Given values and those of the enumerated latents, by node.
        noise: Noise of the other latents, by node.
        latents: Names of the enumerated latents.
        n: Number of samples.
        states: Number of states.
    """

    values: Values
    noise: Values
    latents: Sequence[str]
    n: int
    states: int


def _rows(given: Values, states: Values, noise: Values, latents: Sequence[str], n: int) -> _Rows:
    """Combine every sample with every state."""
    count = count_rows(states)
    values = {key: value.repeat_interleave(count, 0) for key, value in given.items()}
    values |= {key: value.repeat(n, *[1] * (value.ndim - 1)) for key, value in states.items()}
    repeated = {key: value.repeat_interleave(count, 0) for key, value in noise.items() if key not in latents}
    return _Rows(values, repeated, latents, n, count)


def _expected_divergence(name: str, teacher: Graph, student: Graph, rows: _Rows, kind: str, reduction: str) -> Tensor:
    """Return the expected divergence of one node for each sample, ``[n]``."""
    ancestors = ancestry(name, teacher, student, ends=student.targets())
    informative = _informative_targets(name, rows.latents, teacher, student)
    with inference(teacher):
        needed = ancestors.union(*(ancestry(target, teacher, ends=teacher.targets()) for target in informative))
        teacher_raw = _raw_parameters(teacher, needed, rows)
        weights = _state_weights(informative, teacher_raw, rows, teacher)
    student_raw = _raw_parameters(student, ancestors, rows)
    masses = _pair_masses((teacher, teacher_raw), (student, student_raw), rows) * weights[:, :, None]
    values = _pair_divergences(name, (teacher, teacher_raw[name]), (student, student_raw[name]), rows, kind, reduction)
    return (masses * values).sum((1, 2))


def _informative_targets(name: str, latents: Collection[str], teacher: Graph, student: Graph) -> list[str]:
    """Return the given targets before a node whose distributions depend on the enumerated latents.

    Their values are known, so they change the probabilities of the states (Bayes' rule).

    Raises:
        ConfigError: If one of them has no density.
    """
    before = ancestry(name, teacher, student) - {name}
    targets = teacher.targets()
    informative = [
        target
        for target in targets
        if target in before and not ancestry(target, teacher, ends=targets).isdisjoint(latents)
    ]
    point = next((target for target in informative if not targets[target].family.is_random), None)
    if point is not None:
        raise ConfigError(f"node {name!r}: {point!r} is a Delta, of which the latents before both cannot be enumerated")
    return informative


def _raw_parameters(graph: Graph, names: Collection[str], rows: _Rows) -> dict[str, Tensor]:
    """Return the outputs of the networks of some random nodes, by node.

    This is a rollout that leaves out all nodes that are not named, which can be most of a deep model.
    """
    like: Tensor = graph.like
    options = RolloutOptions(forced=frozenset(rows.values), noisy=frozenset(rows.noise))
    store = {**rows.values, **{f"{name}|noise": value for name, value in rows.noise.items()}}
    for node in graph.nodes():
        for task in node_tasks(node, options) if node.name in names else ():
            store[task.provides] = task.run([store[need] for need in task.needs], rows.n * rows.states, like)
    return {name: store[f"{name}|prior"] for name in graph.random_nodes() if name in names}


def _state_weights(informative: Sequence[str], raw: Values, rows: _Rows, teacher: Graph) -> Tensor:
    """Return the ratio of each state's probability with and without the given targets, ``[n, states]``.

    It is 1 if no target is informative.
    """
    probability = torch.ones(()).to(raw[next(iter(raw))]).expand(rows.n, 1)
    for latent in rows.latents:
        low, high = noise_interval(latent, teacher.latents()[latent].family, raw[latent], rows.values[latent])
        probability = probability * (high - low).reshape(rows.n, rows.states, -1).prod(2)
    if not informative:
        return torch.ones_like(probability)
    log_likelihood = torch.zeros_like(probability)
    for target in informative:
        distribution = teacher.targets()[target].family.distribution(raw[target])
        log_prob = per_sample(distribution.log_prob(rows.values[target]), "sum")
        log_likelihood = log_likelihood + log_prob.reshape(probability.shape)
    # p(targets | state) / p(targets); in logarithms, since densities of many pixels underflow.
    ratio = (log_likelihood - (log_likelihood + probability.log()).logsumexp(1, keepdim=True)).exp()
    return torch.where(probability > 0, ratio, 0.0)


def _pair_masses(teacher: tuple[Graph, Values], student: tuple[Graph, Values], rows: _Rows) -> Tensor:
    """Return the mass of the noise of each pair of states, ``[n, states, states]``, the teacher's state first."""
    like: Tensor = student[0].like
    masses = like.new_ones(rows.n, 1, 1)  # without latents there is one pair of states of mass 1
    for latent in rows.latents:
        (t_low, t_high), (s_low, s_high) = (
            (
                end.reshape(rows.n, rows.states, -1)
                for end in noise_interval(latent, graph.latents()[latent].family, raw[latent], rows.values[latent])
            )
            for graph, raw in (teacher, student)
        )
        shared = torch.minimum(t_high[:, :, None], s_high[:, None]) - torch.maximum(t_low[:, :, None], s_low[:, None])
        for element in shared.relu().unbind(-1):  # elements have independent noise, so that masses multiply
            masses = masses * element
    return masses


def _pair_divergences(
    name: str, teacher: tuple[Graph, Tensor], student: tuple[Graph, Tensor], rows: _Rows, kind: str, reduction: str
) -> Tensor:
    """Return the divergence for each pair of states, ``[n, states, states]``, the teacher's state first."""
    first = teacher[1].repeat_interleave(rows.states, 0)
    second = student[1].unflatten(0, (rows.n, rows.states)).repeat_interleave(rows.states, 0).flatten(0, 1)
    traces = [
        Trace({}, {}, {name: graph.random_nodes()[name].family.distribution(raw)}, {})
        for (graph, _), raw in ((teacher, first), (student, second))
    ]
    return node_divergence(Pair(*traces), name, kind, reduction).reshape(rows.n, rows.states, rows.states)
