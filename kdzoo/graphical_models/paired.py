"""Rollouts of teacher and student on the same noise, and the divergences between the distributions of their nodes.

The rollout of the teacher comes first. In that of the student, the targets have the teacher's values (teacher forcing).
The latents have the values that the student computes, those of the teacher (local distillation), or those of the
teacher for some of the samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.divergences import divergence, per_sample
from kdzoo.graphical_models.families import check_same_family
from kdzoo.graphical_models.graph import Graph, Trace, Values
from kdzoo.graphical_models.tasks import Sampler, hard_sample


@dataclass(frozen=True)
class Pair:
    """The rollouts of teacher and student on the same noise."""

    teacher: Trace
    student: Trace


def check_compatible(teacher: Graph, student: Graph, *, allow_unpaired: bool = False) -> list[str]:
    """Check that two models can be compared node by node, and return the latents that both have.

    Args:
        teacher: The teacher.
        student: The student.
        allow_unpaired: Whether latents may lack a partner of the same name and shape.

    Returns:
        Names of the paired latents, in the student's order.

    Raises:
        ConfigError: If targets differ in name, family or shape, or a latent has no partner.
    """
    teacher_targets, student_targets = teacher.targets(), student.targets()
    if teacher_targets.keys() != student_targets.keys():
        raise ConfigError(
            f"the teacher's targets are {list(teacher_targets)}, the student's {list(student_targets)}; "
            "allowed: the same"
        )
    for name, target in student_targets.items():
        check_same_family(name, teacher_targets[name].family, target.family)
    paired = []
    for name, node in student.latents().items():
        partner = teacher.latents().get(name)
        if partner is None:
            continue
        same_shape = partner.family.shape == node.family.shape
        if not same_shape and not allow_unpaired:
            raise ConfigError(
                f"latent {name!r} has shape {partner.family.shape} in the teacher and {node.family.shape} in the "
                "student; give it the same shape, or set distiller.noise_map=learned for a smaller one"
            )
        if same_shape:
            check_same_family(name, partner.family, node.family)
            paired.append(name)
    unpaired = sorted({*student.latents(), *teacher.latents()} - set(paired))
    if unpaired and not allow_unpaired:
        owner = "student" if unpaired[0] in student.latents() else "teacher"
        raise ConfigError(
            f"latent {unpaired[0]!r} of the {owner} has no partner; give both the same name, or set noise_map"
        )
    return paired


def rollout_teacher(teacher: Graph, noise: Values, inputs: Values | None = None) -> Trace:
    """Return the rollout of the teacher without gradient; it can be used for several students.

    Args:
        teacher: The teacher. Its training or eval mode is not changed; distillers keep their teachers in eval mode.
        noise: Noise by node, as :meth:`kdzoo.graphical_models.Graph.noise` draws it.
        inputs: Values of the inputs by node.
    """
    with torch.no_grad():
        return teacher.rollout(noise, inputs)


def rollout_student(
    student: Graph,
    teacher_trace: Trace,
    noise: Values,
    inputs: Values | None = None,
    *,
    teacher_latents: Mapping[str, Tensor | bool] | None = None,
    sampler: Sampler = hard_sample,
) -> Trace:
    """Return the rollout of the student, with the teacher's values of the targets.

    Args:
        student: The student.
        teacher_trace: Result of :func:`rollout_teacher`.
        noise: Noise of the student by node.
        inputs: Values of the inputs by node.
        teacher_latents: Latents with the teacher's value, for all samples (True) or for some (bool ``[b]``), by name.
        sampler: Turns a network's output and noise into a value.
    """
    values = teacher_trace.values
    selections = {name: samples for name, samples in (teacher_latents or {}).items() if name in values}
    forced = {name: values[name] for name in student.targets() if name in values}
    forced |= {name: values[name] for name, samples in selections.items() if samples is True}
    mixed = {name: (values[name], samples) for name, samples in selections.items() if isinstance(samples, Tensor)}
    # Forced values need no noise.
    student_noise = {name: value for name, value in noise.items() if name not in forced}
    return student.rollout(student_noise, inputs, forced=forced, mixed=mixed, sampler=sampler)


def node_divergence(pair: Pair, name: str, kind: str, reduction: str, lengths: Tensor | None = None) -> Tensor:
    """Return the divergence between the two distributions of one node for each sample, ``[b]``.

    Args:
        pair: Rollouts of teacher and student.
        name: Name of the node.
        kind: Name of the divergence, a key of ``DIVERGENCES``.
        reduction: ``sum`` or ``mean`` over the elements of the node's value, and over its steps.
        lengths: Number of valid steps, int64 ``[b]``, for nodes of a sequence.

    Raises:
        ConfigError: If this divergence is not defined for the distributions of the node.
    """
    try:
        values = divergence(kind, pair.teacher.distributions[name], pair.student.distributions[name])
    except ConfigError as error:
        raise ConfigError(f"node {name!r}: {error}") from None
    return per_sample(values, reduction, lengths=lengths)


def paired_rollout(
    teacher: Graph,
    student: Graph,
    noise: Values,
    inputs: Values | None = None,
    *,
    latents_from: str = "student",
    sampler: Sampler = hard_sample,
) -> Pair:
    """Return the rollouts of both models on the same noise.

    Args:
        teacher: The teacher. It is used in eval mode and without gradient; its mode is restored afterwards.
        student: The student, with the same targets and latents.
        noise: Noise by node, the same for both.
        inputs: Values of the inputs by node.
        latents_from: The model whose latents the student's nodes read: ``student`` or ``teacher``.
        sampler: Turns a network's output and noise into a value.

    Raises:
        ConfigError: If the models are not compatible.
    """
    latents = check_compatible(teacher, student)
    # Eval mode: in training mode a teacher with batch norm would sample with batch statistics and change its running
    # statistics, and would then differ from the teacher that is evaluated.
    with inference(teacher):
        teacher_trace = rollout_teacher(teacher, noise, inputs)
    teacher_latents: dict[str, Tensor | bool] = dict.fromkeys(latents, True) if latents_from == "teacher" else {}
    student_trace = rollout_student(
        student, teacher_trace, noise, inputs, teacher_latents=teacher_latents, sampler=sampler
    )
    return Pair(teacher_trace, student_trace)
