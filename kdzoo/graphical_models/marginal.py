"""Exact marginals of the targets, where they can be computed, and the divergence between those of two models.

Two kinds of models have exact marginals. If all latents are bits or classes, every state of them is listed and the
marginal is a mixture over the states (:mod:`kdzoo.graphical_models.states`). If all networks are affine and all nodes
normal, the targets are jointly normal (:mod:`kdzoo.graphical_models.affine`).

The networks process many states in one call, so the values of a sample must not depend on the other samples: batch norm
has to be in eval mode. Sequences have their default number of steps.
"""

import torch
from torch import Tensor
from torch.distributions import OneHotCategorical, kl_divergence

from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.affine import compared_families, gaussian_marginal
from kdzoo.graphical_models.divergences import divergence, per_sample
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.paired import check_compatible
from kdzoo.graphical_models.states import (
    MAX_STATES,
    check_count,
    count_rows,
    count_states,
    cross_rows,
    enumerate_states,
)

# ---------------------------------------------------------------- the marginal of one model


def log_marginal(graph: Graph, targets: Values, inputs: Values | None = None) -> Tensor:
    """Return the log density of targets, with all other random values summed or integrated out, ``[b]`` in nats.

    Args:
        graph: A graph whose latents are all bits or classes, or a linear normal graph.
        targets: Values of all targets, ``[b, ...]``.
        inputs: Values of the inputs, ``[b, ...]``.

    Raises:
        ConfigError: If the graph is of neither kind, has too many states, or a target has no density.
    """
    _check_densities(graph)
    if not _has_discrete_latents(graph):
        # Mixed models end here too; ``gaussian_marginal`` names the node that is not normal.
        values = torch.cat([targets[name].flatten(1) for name in graph.targets()], 1)
        return gaussian_marginal(graph, inputs).log_prob(values)
    given = {**(inputs or {}), **targets}
    states = enumerate_states(graph, _random_latents(graph))
    rows = cross_rows(given, states)
    return _log_joint(graph, rows, inputs or {}).reshape(count_rows(given), count_rows(states)).logsumexp(1)


def marginal_table(graph: Graph, inputs: Values | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Return all values of discrete targets and their log-probabilities.

    Args:
        graph: A graph whose latents and targets are all bits or classes.
        inputs: Values of the inputs, ``[b, ...]``; without them b is 1.

    Returns:
        The values ``[S, ...]`` by name, and the log-probabilities ``[b, S]`` in nats.

    Raises:
        ConfigError: If a node is of another family, or there are too many states.
    """
    check_count(graph, _random_latents(graph) + list(graph.targets()))
    states = enumerate_states(graph, graph.targets())
    rows = cross_rows(inputs or {}, states)
    logs = log_marginal(graph, {name: rows[name] for name in states}, {name: rows[name] for name in inputs or {}})
    return states, logs.reshape(count_rows(inputs or {}), count_rows(states))


# ---------------------------------------------------------------- two models


def marginal_kl(teacher: Graph, student: Graph, inputs: Values | None = None) -> Tensor:
    """Return the exact KL(teacher's targets || student's targets) with gradients for the student, ``[b]`` in nats.

    Latents need no partner.

    Args:
        teacher: The teacher; no gradient reaches it.
        student: The student.
        inputs: Values of the inputs, ``[b, ...]``; without them b is 1.

    Raises:
        ConfigError: If the targets differ, or the models are neither discrete nor linear and normal, or have too many
            states.
    """
    check_compatible(teacher, student, allow_unpaired=True)
    if not any(family.is_discrete for graph in (teacher, student) for family in compared_families(graph).values()):
        with inference(teacher):
            teacher_marginal = gaussian_marginal(teacher, inputs)
        return kl_divergence(teacher_marginal, gaussian_marginal(student, inputs))
    with inference(teacher):
        teacher_logits = marginal_table(teacher, inputs)[1]
    student_logits = marginal_table(student, inputs)[1]
    # The state of all targets is one class; this KL is exact where the teacher's probability of a state is 0.
    return divergence("kl", OneHotCategorical(logits=teacher_logits), OneHotCategorical(logits=student_logits))


def marginal_divergence(teacher: Graph, student: Graph, noise: Values, inputs: Values | None = None) -> Tensor:
    """Return a loss whose minimum makes the student's marginal equal to the teacher's, ``[b]`` in nats.

    It is :func:`marginal_kl` if both models are linear and normal, or discrete with few enough states to list them.
    Otherwise it is log p_teacher(y) - log p_student(y) of the teacher's own samples y, with exact densities. The mean
    of this estimate is the divergence, but a single value can be negative.

    Args:
        teacher: The teacher; no gradient reaches it.
        student: The student.
        noise: Noise of the teacher, b rows; where samples are needed also that of leaves
            (``teacher.noise(b, leaves=True)``).
        inputs: Values of the inputs, ``[b, ...]``.

    Raises:
        ConfigError: If a marginal cannot be computed, the targets differ, or a target has no noise.
    """
    check_compatible(teacher, student, allow_unpaired=True)
    graphs = (teacher, student)
    if all(_is_enumerable(graph) for graph in graphs) or not any(_has_discrete_latents(graph) for graph in graphs):
        return marginal_kl(teacher, student, inputs).expand(count_rows({**(inputs or {}), **noise}))
    with inference(teacher):
        values = teacher.rollout(noise, inputs).values
    without_noise = [name for name in teacher.targets() if name not in values]
    if without_noise:
        raise ConfigError(f"noise must hold that of target {without_noise[0]!r}: draw it with leaves=True")
    targets = {name: values[name] for name in teacher.targets()}
    with inference(teacher):
        teacher_density = log_marginal(teacher, targets, inputs)
    return teacher_density - log_marginal(student, targets, inputs)


# ---------------------------------------------------------------- which graphs


def _log_joint(graph: Graph, rows: Values, inputs: Values) -> Tensor:
    """Return the log density of values of all random nodes, ``[n]``."""
    given = {name: rows[name] for name in inputs}
    forced = {name: value for name, value in rows.items() if name not in inputs}
    distributions = graph.rollout({}, given, forced=forced).distributions
    logs = [per_sample(distributions[name].log_prob(value), "sum") for name, value in forced.items()]
    return torch.stack(logs).sum(0)


def _random_latents(graph: Graph) -> list[str]:
    """Return the names of latents that are not point masses."""
    return [name for name in compared_families(graph) if name in graph.latents()]


def _has_discrete_latents(graph: Graph) -> bool:
    """Return whether all random latents are discrete."""
    return all(graph.latents()[name].family.is_discrete for name in _random_latents(graph))


def _is_enumerable(graph: Graph) -> bool:
    """Return whether the states of all random nodes can be listed."""
    families = compared_families(graph)
    return all(family.is_discrete for family in families.values()) and count_states(graph, families) <= MAX_STATES


def _check_densities(graph: Graph) -> None:
    """Reject targets that are point masses."""
    point = next((name for name, node in graph.targets().items() if not node.family.is_random), None)
    if point is not None:
        raise ConfigError(f"target {point!r} is a Delta, which has no density")
