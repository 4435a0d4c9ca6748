"""Divergences of two models' nodes as exact expectations over their discrete latents, and thus with exact gradients.

A node's distribution depends on the latents before it, up to the targets, whose values are given. Each pair of states
of these latents, the teacher's and the student's, has the mass of the uniform noise that leads to both: for a bit the
masses of (1, 1), (1, 0), (0, 1) and (0, 0) are min(p, q), max(p - q, 0), max(q - p, 0) and 1 - max(p, q) where p and q are
the two models' chances of 1. The nets are asked for each state of one model, the divergence for each pair.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from kdzoo import checks
from kdzoo.errors import ConfigError
from kdzoo.graphical.discrete import ancestry, discrete_ancestors
from kdzoo.graphical.divergences import per_sample
from kdzoo.graphical.graph import Graph, Trace, Values
from kdzoo.graphical.marginal import crossed, list_states, noise_interval
from kdzoo.graphical.paired import Pair, check_partners, node_divergence
from kdzoo.graphical.tasks import Rules, tasks_of
from kdzoo.inference import inference


def enumerated(
    teacher: Graph,
    student: Graph,
    trace: Trace,
    noise: Values,
    inputs: Values | None = None,
    *,
    nodes: Collection[str] | None = None,
    kind: str = "kl",
    reduction: str = "sum",
    limit: int = 4096,
) -> dict[str, Tensor]:
    """Return the expected divergences of nodes over the discrete latents before them.

    What is not enumerated stays as it is rolled out: inputs, the noise of continuous latents, and the teacher's values
    of targets. Where these depend on the latents, the states are weighted by the density of the values.

    The nets are asked for many states at once, so a sample's values must not depend on the other samples.

    Args:
        teacher: stays as it is and gets no gradient.
        student: has the same targets and latents.
        trace: the teacher's roll-out, of :func:`kdzoo.graphical.paired.imitated`.
        noise: by node, on which the teacher was rolled out.
        inputs: values of the inputs.
        nodes: names of targets or latents; None: all targets.
        kind: name of the divergence.
        reduction: ``sum`` or ``mean`` over the elements of a node's value.
        limit: pairs of states that are enumerated at most, for one node and sample, >= 1.

    Returns:
        By node [b].

    Raises:
        ConfigError: a model has a sequence, the models do not fit each other, a discrete latent is not the quantile of
            a uniform number, a node has too many pairs of states, or values of a target without a density depend on them.
    """
    checks.integer("limit", limit)
    check_partners(teacher, student)
    found = {}
    for name in student.targets() if nodes is None else nodes:
        latents = discrete_ancestors(name, teacher, student)
        states = list_states(student, latents)
        count = len(states[latents[0]]) if latents else 1
        if count**2 > limit:
            raise ConfigError(f"node {name!r}: {', '.join(latents)} have {count**2} pairs of states; limit is {limit}")
        given = {**(inputs or {}), **{target: trace.values[target] for target in trace.values if target in student.targets()}}
        kept = {latent: noise[latent] for latent in student.latents() if latent in noise and latent not in latents}
        rows = _Rows(crossed(given, states), crossed(kept, {"": torch.empty(count)}), len(trace.raw[name]), count)
        found[name] = _expected(name, teacher, student, rows, latents, kind, reduction)
    return found
