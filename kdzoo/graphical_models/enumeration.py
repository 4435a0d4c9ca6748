"""Divergences of two models' nodes as exact expectations over their discrete latents, and thus with exact gradients.

A node's distribution depends on the latents before it, up to the targets, whose values are given. Each pair of states
of these latents, the teacher's and the student's, has the mass of the uniform noise that leads to both: for a bit the
masses of (1, 1), (1, 0), (0, 1) and (0, 0) are min(p, q), max(p - q, 0), max(q - p, 0) and 1 - max(p, q), where p and q
are the two models' chances of 1. The nets are asked for each state of one model, the divergence for each pair.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.discrete import ancestry, discrete_ancestors
from kdzoo.graphical_models.divergences import per_sample
from kdzoo.graphical_models.graph import Graph, Trace, Values
from kdzoo.graphical_models.marginal import list_states, noise_interval
from kdzoo.graphical_models.paired import Pair, check_partners, node_divergence
from kdzoo.graphical_models.tasks import Rules, tasks_of


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
    of targets. Where these targets depend on the latents, states are weighted by the density that they give them.

    The nets are asked for many states at once, so a sample's values must not depend on the other samples.

    Args:
        teacher: stays as it is and gets no gradient.
        student: has the same targets and latents.
        trace: the teacher's roll-out, of :func:`kdzoo.graphical_models.paired.imitated`.
        noise: by node, on which the teacher was rolled out.
        inputs: values of the inputs.
        nodes: names of targets or latents; None: all targets.
        kind: name of the divergence.
        reduction: ``sum`` or ``mean`` over the elements of a node's value.
        limit: pairs of states that are enumerated at most, for one node and sample, >= 1.

    Returns:
        By node [b].

    Raises:
        ConfigError: a model has a sequence, the models do not fit each other, a latent's values are no quantiles of one
            uniform number, a node has too many pairs of states, or a target that depends on them has no density.
    """
    validation.integer("limit", limit)
    check_partners(teacher, student)
    given = {**(inputs or {}), **{name: trace.values[name] for name in student.targets() if name in trace.values}}
    kept = {name: noise[name].to(trace.raw[name]) for name in student.latents() if name in noise}
    found = {}
    for name in student.targets() if nodes is None else nodes:
        latents = discrete_ancestors(name, teacher, student)
        states = list_states(student, latents)
        count = len(states[latents[0]]) if latents else 1
        if count**2 > limit:
            raise ConfigError(f"node {name!r}: {', '.join(latents)} have {count**2} pairs of states; limit is {limit}")
        n = len(trace.raw[name])
        rows = {key: value.repeat_interleave(count, 0) for key, value in given.items()}
        rows |= {key: value.repeat(n, *[1] * (value.ndim - 1)) for key, value in states.items()}
        drawn = {key: value.repeat_interleave(count, 0) for key, value in kept.items() if key not in latents}
        behind = ancestry(name, teacher, student, ends=student.targets())
        telling = _telling(name, latents, teacher, student)
        with inference(teacher):
            seen = behind.union(*(ancestry(target, teacher, ends=teacher.targets()) for target in telling))
            theirs = _raw(teacher, seen, rows, drawn, n * count)
            weights = _weights(telling, theirs, rows, latents, teacher, n)
        own = _raw(student, behind, rows, drawn, n * count)
        masses = _masses(latents, (teacher, theirs), (student, own), rows, n) * weights[:, :, None]
        values = _of_pairs(name, (teacher, theirs[name]), (student, own[name]), n, kind, reduction)
        found[name] = (masses * values).sum((1, 2))
    return found


def _telling(name: str, latents: Collection[str], teacher: Graph, student: Graph) -> list[str]:
    """Return the given targets before a node whose distributions depend on the latents that are enumerated.

    Raises:
        ConfigError: one of them has no density.
    """
    before = ancestry(name, teacher, student) - {name}
    targets = teacher.targets()
    telling = [
        target
        for target in targets
        if target in before and not ancestry(target, teacher, ends=targets).isdisjoint(latents)
    ]
    point = next((target for target in telling if not targets[target].family.is_random), None)
    if point is not None:
        raise ConfigError(f"node {name!r}: {point!r} is a Delta, of which the latents before both cannot be enumerated")
    return telling


def _raw(graph: Graph, names: Collection[str], values: Values, noise: Values, rows: int) -> dict[str, Tensor]:
    """Return what the nets of some nodes return, by random node, where the given values are forced."""
    like: Tensor = graph.like
    rules = Rules(forced=frozenset(values), noisy=frozenset(noise))
    store = {**values, **{f"{name}|noise": value for name, value in noise.items()}}
    for node in graph.nodes():
        for task in tasks_of(node, rules) if node.name in names else ():
            store[task.provides] = task.run([store[need] for need in task.needs], rows, like)
    return {name: store[f"{name}|prior"] for name in graph.random_nodes() if name in names}


def _weights(
    telling: Sequence[str], raw: Values, rows: Values, latents: Sequence[str], teacher: Graph, n: int
) -> Tensor:
    """Return the ratio of each state's chance with and without the given targets, [n, S]; 1 where they tell nothing."""
    chance = torch.ones(()).to(raw[next(iter(raw))]).expand(n, 1)
    for latent in latents:
        starts, ends = noise_interval(latent, teacher.latents()[latent].family, raw[latent], rows[latent])
        chance = chance * (ends - starts).reshape(n, len(ends) // n, -1).prod(2)
    if not telling:
        return torch.ones_like(chance)
    logs = torch.zeros_like(chance)
    for target in telling:
        distribution = teacher.targets()[target].family.distribution(raw[target])
        logs = logs + per_sample(distribution.log_prob(rows[target]), "sum").reshape(chance.shape)
    ratio = (logs - (logs + chance.log()).logsumexp(1, keepdim=True)).exp()
    return torch.where(chance > 0, ratio, 0.0)


def _masses(
    latents: Sequence[str], teacher: tuple[Graph, Values], student: tuple[Graph, Values], rows: Values, n: int
) -> Tensor:
    """Return the mass of the noise of each pair of states, [n, S, S], the teacher's first; S is 1 without latents."""
    like: Tensor = student[0].like
    masses = like.new_ones(n, 1, 1)
    for latent in latents:
        (starts, ends), (first, last) = (
            (
                end.reshape(n, len(end) // n, -1)
                for end in noise_interval(latent, graph.latents()[latent].family, raw[latent], rows[latent])
            )
            for graph, raw in (teacher, student)
        )
        shared = torch.minimum(ends[:, :, None], last[:, None]) - torch.maximum(starts[:, :, None], first[:, None])
        for element in shared.relu().unbind(-1):
            masses = masses * element
    return masses


def _of_pairs(
    name: str, teacher: tuple[Graph, Tensor], student: tuple[Graph, Tensor], n: int, kind: str, reduction: str
) -> Tensor:
    """Return the divergence for each pair of states, [n, S, S], the teacher's first."""
    count = len(teacher[1]) // n
    first = teacher[1].repeat_interleave(count, 0)
    second = student[1].unflatten(0, (n, count)).repeat_interleave(count, 0).flatten(0, 1)
    traces = [
        Trace({}, {}, {name: graph.random_nodes()[name].family.distribution(raw)}, {})
        for (graph, _), raw in ((teacher, first), (student, second))
    ]
    return node_divergence(Pair(*traces), name, kind, reduction).reshape(n, count, count)
