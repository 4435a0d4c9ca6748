"""Exact expectations over the noise of the divergences of nodes, where they can be computed.

For discrete models the pairs of states of both models are listed; for linear normal models the mean square of an affine
function of the noise is known. The functions for training on hard samples of larger models are in
:mod:`kdzoo.graphical_models.discrete` and :mod:`kdzoo.graphical_models.enumeration`.
"""

import torch
from torch import Tensor
from torch.distributions import Normal

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.affine import affine_maps, check_normal, compared_families
from kdzoo.graphical_models.divergences import kl_normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.paired import Pair, check_compatible, node_divergence, paired_rollout
from kdzoo.graphical_models.states import check_count, count_rows, cross_rows, enumerate_states, noise_interval


def expected_divergences(
    teacher: Graph, student: Graph, inputs: Values | None = None, *, latents_from: str = "student"
) -> dict[str, Tensor]:
    """Return the exact mean over the noise of KL(teacher || student) for every random node, ``[b]`` by name, in nats.

    :func:`kdzoo.graphical_models.paired.node_divergence` estimates the same quantity. The sum over the targets bounds
    :func:`kdzoo.graphical_models.marginal.marginal_kl` from above, since KL is jointly convex and targets that others
    depend on are the teacher's. With the teacher's latents, the sum over all nodes is a bound by the chain rule.

    Args:
        teacher: The teacher; no gradient reaches it.
        student: The student, with the same targets and latents.
        inputs: Values of the inputs, ``[b, ...]``; without them b is 1.
        latents_from: Whose latents the student's nodes read: ``student`` or ``teacher``.

    Raises:
        ConfigError: If the models are not compatible, are neither discrete nor linear and normal, or have too many
            states together.
    """
    check_compatible(teacher, student)
    validation.choice("latents_from", latents_from, ("student", "teacher"))
    if any(family.is_discrete for family in compared_families(teacher).values()):
        return _mean_over_states(teacher, student, inputs or {}, latents_from)
    return _mean_over_normal_noise(teacher, student, inputs or {}, latents_from)


def _mean_over_normal_noise(teacher: Graph, student: Graph, inputs: Values, latents_from: str) -> dict[str, Tensor]:
    """Return the means for linear normal models.

    The means of a node differ by an affine function c + B eps of the noise, whose mean square is |c|^2 + |B|^2.
    """
    check_normal(teacher)
    scales = {}

    def differences(noise: Values, repeated: Values) -> dict[str, Tensor]:
        pair = paired_rollout(teacher, student, noise, repeated, latents_from=latents_from)
        result = {}
        for name in compared_families(student):
            p, q = pair.teacher.distributions[name], pair.student.distributions[name]
            result[name] = p.mean - q.mean
            scales[name] = torch.stack([p.stddev.flatten(1), q.stddev.flatten(1)])
        return result

    means = {}
    for name, (offset, matrix) in affine_maps(differences, teacher, inputs).items():
        deviations = scales[name].unflatten(1, (len(offset), -1))
        if not torch.allclose(deviations, deviations[:, :, :1]):
            raise ConfigError(f"node {name!r} must have a deviation that depends on nothing random")
        teacher_scale, student_scale = deviations[:, :, 0]
        # KL of the deviations alone, then the part of the means.
        of_scales = kl_normal(*(Normal(torch.zeros_like(scale), scale) for scale in (teacher_scale, student_scale)))
        square = offset.square() + matrix.square().sum(-1)
        means[name] = (of_scales + 0.5 * square / student_scale.square()).sum(1)
    return means


def _mean_over_states(teacher: Graph, student: Graph, inputs: Values, latents_from: str) -> dict[str, Tensor]:
    """Return the means for discrete models: pairs of both models' states, weighted by the mass of their noise."""
    # Values of nodes that no other node depends on do not matter: only their distributions are compared.
    inner = [name for name in compared_families(teacher) if name not in teacher.leaves() & student.leaves()]
    latents = [name for name in inner if name in teacher.latents()]
    student_latents = latents if latents_from == "student" else []
    check_count(teacher, [*inner, *student_latents])
    student_states = {f"{name}|student": value for name, value in enumerate_states(teacher, student_latents).items()}
    rows = cross_rows(inputs, cross_rows(enumerate_states(teacher, inner), student_states))
    row_inputs = {name: rows[name] for name in inputs}
    teacher_values = {name: rows[name] for name in inner}
    with inference(teacher):
        teacher_trace = teacher.rollout({}, row_inputs, forced=teacher_values)
    student_values = {**teacher_values, **{name: rows[f"{name}|student"] for name in student_latents}}
    pair = Pair(teacher_trace, student.rollout({}, row_inputs, forced=student_values))
    mass = next(iter(teacher_trace.raw.values())).new_ones(count_rows(rows))
    for name in inner:
        family = teacher.random_nodes()[name].family
        low, high = noise_interval(name, family, teacher_trace.raw[name], teacher_values[name])
        if name in student_latents:  # the same noise must lead to both values
            family = student.random_nodes()[name].family
            student_low, student_high = noise_interval(name, family, pair.student.raw[name], student_values[name])
            low, high = torch.maximum(low, student_low), torch.minimum(high, student_high)
        mass = mass * (high - low).clamp_min(0).reshape(len(mass), -1).prod(1)
    return {
        name: (mass * node_divergence(pair, name, "kl", "sum")).reshape(count_rows(inputs), -1).sum(1)
        for name in compared_families(student)
    }
