"""Two models on the same noise: the paired roll-out, and how far apart the distributions of their nodes are.

The student's targets are the teacher's; its latents are its own (``teachers`` empty), the teacher's (local
distillation), or the teacher's for some samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.divergences import divergence, per_sample
from kdzoo.graphical_models.families import check_same
from kdzoo.graphical_models.graph import Graph, Trace, Values
from kdzoo.graphical_models.tasks import Sampler, hard


@dataclass(frozen=True)
class Pair:
    """The roll-outs of teacher and student on the same noise."""

    teacher: Trace
    student: Trace


def check_partners(teacher: Graph, student: Graph, *, unpaired: bool = False) -> list[str]:
    """Return the names of the latents that both have, in the student's order.

    Args:
        teacher: the model that is imitated.
        student: the model that imitates.
        unpaired: whether latents may lack a partner of the same shape.

    Raises:
        ConfigError: targets differ in name, family or shape, or a latent has no partner.
    """
    theirs, own = teacher.targets(), student.targets()
    if theirs.keys() != own.keys():
        raise ConfigError(f"the teacher's targets are {list(theirs)}, the student's {list(own)}; allowed: the same")
    for name, target in own.items():
        check_same(name, theirs[name].family, target.family)
    paired = []
    for name, node in student.latents().items():
        partner = teacher.latents().get(name)
        if partner is not None and (not unpaired or partner.family.shape == node.family.shape):
            check_same(name, partner.family, node.family)
            paired.append(name)
    lonely = sorted({*student.latents(), *teacher.latents()} - set(paired))
    if lonely and not unpaired:
        whose = "student" if lonely[0] in student.latents() else "teacher"
        raise ConfigError(
            f"latent {lonely[0]!r} of the {whose} has no partner; name it as its partner, or map the noise"
        )
    return paired


def imitated(teacher: Graph, noise: Values, inputs: Values | None = None) -> Trace:
    """Roll the teacher out, as it is, without gradients; several students may follow one roll-out."""
    with torch.no_grad():
        return teacher.rollout(noise, inputs)


def follow(
    student: Graph,
    teacher: Trace,
    noise: Values,
    inputs: Values | None = None,
    *,
    teachers: Mapping[str, Tensor | bool] | None = None,
    sampler: Sampler = hard,
) -> Trace:
    """Roll the student out on the teacher's targets.

    Args:
        student: the model that imitates.
        teacher: the teacher's roll-out.
        noise: the student's, by node.
        inputs: values of the inputs.
        teachers: latents whose value is the teacher's: for all samples (True), or for some (bool [b]).
        sampler: makes a value of a net's output and noise.
    """
    taken = teachers or {}
    forced = {name: teacher.values[name] for name in student.targets() if name in teacher.values}
    needed = {name: which for name, which in taken.items() if name in teacher.values}
    forced |= {name: teacher.values[name] for name, which in needed.items() if which is True}
    mixed = {name: (teacher.values[name], which) for name, which in needed.items() if isinstance(which, Tensor)}
    own = {name: value for name, value in noise.items() if name not in forced}
    return student.rollout(own, inputs, forced=forced, mixed=mixed, sampler=sampler)


def node_divergence(pair: Pair, name: str, kind: str, reduction: str, lengths: Tensor | None = None) -> Tensor:
    """Return the divergence of one node's distributions for each sample, [b].

    Args:
        pair: the roll-outs.
        name: of the node.
        kind: name of the divergence.
        reduction: ``sum`` or ``mean`` over the elements of the node's value, and over its steps.
        lengths: int64 [b], valid steps, for nodes of a sequence.

    Raises:
        ConfigError: there is no such divergence between the two.
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
    parents: str = "student",
    sampler: Sampler = hard,
) -> Pair:
    """Roll out both models on the same noise.

    Args:
        teacher: stays as it is and gets no gradient.
        student: has the same targets and latents.
        noise: by node.
        inputs: values of the inputs.
        parents: whose latents the student's nodes are given: ``student`` or ``teacher``.
        sampler: makes a value of a net's output and noise.

    Raises:
        ConfigError: the models do not fit each other.
    """
    latents = check_partners(teacher, student)
    with inference(teacher):
        trace = imitated(teacher, noise, inputs)
    taken: dict[str, Tensor | bool] = dict.fromkeys(latents, True) if parents == "teacher" else {}
    return Pair(trace, follow(student, trace, noise, inputs, teachers=taken, sampler=sampler))


def half_of(share: float, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return which of n samples take the teacher's value: each with probability ``share``, bool [n]."""
    return torch.rand(n, generator=generator) < share
