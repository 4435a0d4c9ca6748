"""Exact marginals of the targets, where they can be computed, and what two models' marginals differ in.

Two kinds of models have them. Where all latents are bits or classes, every state of these is listed, and the marginal
is a mixture over the states. Where all nets are affine and all random nodes normal with deviations that depend on
nothing random, the targets are jointly normal; the affine map from the noise to the targets is found by rolling the
graph out on zero noise and on unit vectors, and checked at other points.

The nets are asked for many states at once, so a sample's values must not depend on the other samples: batch norm
belongs into eval mode. Values of a sequence have its own number of steps.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from math import prod

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, OneHotCategorical, kl_divergence
from torch.distributions import Normal as NormalDistribution

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.divergences import divergence, kl_normal, per_sample
from kdzoo.graphical_models.families import Bernoulli, Categorical, Family, Normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.nodes import Target
from kdzoo.graphical_models.paired import Pair, check_partners, node_divergence, paired_rollout

LIMIT = 2**16
"""States that are listed at most, for one sample."""
POINTS = 4
"""Points at which a map is checked to be affine."""


# ---------------------------------------------------------------- the marginal of one model


def log_marginal(graph: Graph, targets: Values, inputs: Values | None = None) -> Tensor:
    """Return the log density of targets, all other random values summed or integrated out: nats, [b].

    Args:
        graph: whose latents are all bits or classes, or which is linear and normal.
        targets: values of all targets, [b, ...].
        inputs: values of the inputs, [b, ...].

    Raises:
        ConfigError: the graph is of neither kind, has too many states, or a target has no density.
    """
    _check_densities(graph)
    if not _lists_latents(graph):
        values = torch.cat([targets[name].flatten(1) for name in graph.targets()], 1)
        return gaussian_marginal(graph, inputs).log_prob(values)
    given = {**(inputs or {}), **targets}
    states = list_states(graph, _random_latents(graph))
    rows = crossed(given, states)
    return _log_joint(graph, rows, inputs or {}).reshape(_rows(given), _rows(states)).logsumexp(1)


def marginal_table(graph: Graph, inputs: Values | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Return all values [S, ...] that discrete targets can have, by name, and their log-probabilities [b, S].

    Args:
        graph: whose latents and targets are all bits or classes.
        inputs: values of the inputs, [b, ...]; without, b is 1.

    Raises:
        ConfigError: a node is of another family, or there are too many states.
    """
    random = _random_latents(graph) + list(graph.targets())
    _check_count(graph, random)
    states = list_states(graph, graph.targets())
    rows = crossed(inputs or {}, states)
    logs = log_marginal(graph, {name: rows[name] for name in states}, {name: rows[name] for name in inputs or {}})
    return states, logs.reshape(_rows(inputs or {}), _rows(states))


def gaussian_marginal(graph: Graph, inputs: Values | None = None) -> MultivariateNormal:
    """Return the joint distribution of all targets, in order and flattened, with batch shape [b].

    Args:
        graph: affine and normal.
        inputs: values of the inputs, [b, ...]; without, b is 1.

    Raises:
        ConfigError: a node is not normal, or its value is no affine function of the noise.
    """
    values = _affine_values(graph, inputs)
    parts = [values[name] for name in graph.targets()]
    offset, matrix = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    root = torch.linalg.qr(matrix.mT).R.mT  # of the covariance, without squaring its condition
    signs = root.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return MultivariateNormal(offset, scale_tril=root * signs, validate_args=False)


# ---------------------------------------------------------------- two models


def marginal_kl(teacher: Graph, student: Graph, inputs: Values | None = None) -> Tensor:
    """Return KL(teacher's targets || student's targets), exact, with gradients for the student: nats, [b].

    Latents need no partner.

    Args:
        teacher: the model that is imitated; no gradient reaches it.
        student: the model that imitates.
        inputs: values of the inputs, [b, ...]; without, b is 1.

    Raises:
        ConfigError: the targets differ, the models are neither discrete nor linear and normal, or have too many states.
    """
    check_partners(teacher, student, unpaired=True)
    if not any(family.is_discrete for graph in (teacher, student) for family in _families(graph).values()):
        with inference(teacher):
            truth = gaussian_marginal(teacher, inputs)
        return kl_divergence(truth, gaussian_marginal(student, inputs))
    with inference(teacher):
        table = marginal_table(teacher, inputs)[1]
    own = marginal_table(student, inputs)[1]
    return divergence("kl", OneHotCategorical(logits=table), OneHotCategorical(logits=own))


def marginal_divergence(teacher: Graph, student: Graph, noise: Values, inputs: Values | None = None) -> Tensor:
    """Return what to descend so that the student's marginal becomes the teacher's: nats, [b].

    It is :func:`marginal_kl` where both models are linear and normal, or discrete with few enough states to list them.
    Elsewhere it is log p_teacher(y) - log p_student(y) of the teacher's own samples y, with exact densities: its mean
    is the divergence, but a single value may be negative.

    Args:
        teacher: the model that is imitated; no gradient reaches it.
        student: the model that imitates.
        noise: the teacher's, b rows, of leaves too (``teacher.noise(b, leaves=True)``) where samples are needed.
        inputs: values of the inputs, [b, ...].

    Raises:
        ConfigError: a marginal cannot be computed, the targets differ, or a target has no noise.
    """
    check_partners(teacher, student, unpaired=True)
    both = (teacher, student)
    if all(_is_listable(graph) for graph in both) or not any(_lists_latents(graph) for graph in both):
        return marginal_kl(teacher, student, inputs).expand(_rows({**(inputs or {}), **noise}))
    with inference(teacher):
        values = teacher.rollout(noise, inputs).values
    silent = [name for name in teacher.targets() if name not in values]
    if silent:
        raise ConfigError(f"noise must hold that of target {silent[0]!r}: draw it with leaves=True")
    targets = {name: values[name] for name in teacher.targets()}
    with inference(teacher):
        truth = log_marginal(teacher, targets, inputs)
    return truth - log_marginal(student, targets, inputs)


def expected_divergences(
    teacher: Graph, student: Graph, inputs: Values | None = None, *, parents: str = "student"
) -> dict[str, Tensor]:
    """Return the exact mean over the noise of KL(teacher || student) of every random node: nats, [b] by name.

    It is what :func:`kdzoo.graphical_models.paired.node_divergence` estimates. The sum over the targets bounds
    :func:`marginal_kl` from above, since KL is jointly convex and the targets that others depend on are the teacher's.
    With the teacher's latents as parents the sum over all nodes bounds it, by the chain rule.

    Args:
        teacher: the model that is imitated; no gradient reaches it.
        student: has the same targets and latents.
        inputs: values of the inputs, [b, ...]; without, b is 1.
        parents: whose latents the student's nodes are given: ``student`` or ``teacher``.

    Raises:
        ConfigError: the models do not fit each other, are neither discrete nor linear and normal, or have too many
            states together.
    """
    check_partners(teacher, student)
    validation.choice("parents", parents, ("student", "teacher"))
    if any(family.is_discrete for family in _families(teacher).values()):
        return _mean_over_cells(teacher, student, inputs or {}, parents)
    return _mean_over_normal_noise(teacher, student, inputs or {}, parents)


def _mean_over_normal_noise(teacher: Graph, student: Graph, inputs: Values, parents: str) -> dict[str, Tensor]:
    """Use that the means differ by an affine function c + B eps of the noise, whose mean square is |c|^2 + |B|^2."""
    _check_normal(teacher)
    scales = {}

    def differences(noise: Values, repeated: Values) -> dict[str, Tensor]:
        pair = paired_rollout(teacher, student, noise, repeated, parents=parents)
        found = {}
        for name in _families(student):
            p, q = pair.teacher.distributions[name], pair.student.distributions[name]
            found[name] = p.mean - q.mean
            scales[name] = torch.stack([p.stddev.flatten(1), q.stddev.flatten(1)])
        return found

    means = {}
    for name, (offset, matrix) in _affine(differences, teacher, inputs).items():
        deviations = scales[name].unflatten(1, (len(offset), -1))
        if not torch.allclose(deviations, deviations[:, :, :1]):
            raise ConfigError(f"node {name!r} must have a deviation that depends on nothing random")
        scale, own = deviations[:, :, 0]
        of_scales = kl_normal(*(NormalDistribution(torch.zeros_like(one), one) for one in (scale, own)))
        square = offset.square() + matrix.square().sum(-1)
        means[name] = (of_scales + 0.5 * square / own.square()).sum(1)
    return means


def _mean_over_cells(teacher: Graph, student: Graph, inputs: Values, parents: str) -> dict[str, Tensor]:
    """List the pairs of both models' values, each with the mass of the noise that leads to it."""
    inner = [name for name in _families(teacher) if name not in teacher.leaves() & student.leaves()]
    latents = [name for name in inner if name in teacher.latents()]
    own = latents if parents == "student" else []
    _check_count(teacher, [*inner, *own])
    states = list_states(teacher, inner)
    cells = crossed(states, {f"{name}|own": value for name, value in list_states(teacher, own).items()})
    rows = crossed(inputs, cells)
    given = {name: rows[name] for name in inputs}
    theirs = {name: rows[name] for name in inner}
    with inference(teacher):
        truth = teacher.rollout({}, given, forced=theirs)
    taken = {**theirs, **{name: rows[f"{name}|own"] for name in own}}
    pair = Pair(truth, student.rollout({}, given, forced=taken))
    mass = next(iter(truth.raw.values())).new_ones(_rows(rows))
    for name in inner:
        lower, upper = noise_interval(name, teacher.random_nodes()[name].family, truth.raw[name], theirs[name])
        if name in own:
            family = student.random_nodes()[name].family
            least, most = noise_interval(name, family, pair.student.raw[name], taken[name])
            lower, upper = torch.maximum(lower, least), torch.minimum(upper, most)
        mass = mass * (upper - lower).clamp_min(0).reshape(len(mass), -1).prod(1)
    return {
        name: (mass * node_divergence(pair, name, "kl", "sum")).reshape(_rows(inputs), -1).sum(1)
        for name in _families(student)
    }


def noise_interval(name: str, family: Family, raw: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of the interval of uniform noise that becomes the given value, for each element.

    Args:
        name: of the node, for the error.
        family: bits, or classes that are quantiles.
        raw: what the net returns.
        value: bits or one-hot vectors.

    Raises:
        ConfigError: the values of the family are no quantiles of one uniform number.
    """
    if isinstance(family, Bernoulli):
        chance = raw.sigmoid()
        return (1 - value) * chance, value * chance + (1 - value)
    if isinstance(family, Categorical) and not family.gumbel:
        ends = raw.softmax(-1).cumsum(-1)
        starts = torch.cat([torch.zeros_like(ends[..., :1]), ends[..., :-1]], -1)
        return (value * starts).sum(-1), (value * ends).sum(-1)
    raise ConfigError(f"node {name!r}: its values must be Bernoulli or Categorical without gumbel, got {family}")


# ---------------------------------------------------------------- states


def list_states(graph: Graph, names: Iterable[str]) -> dict[str, Tensor]:
    """Return all values that discrete nodes can have together, [S, ...] by name; nothing for no nodes, which is S = 1.

    Raises:
        ConfigError: a node is neither Bernoulli nor Categorical, or there are too many states.
    """
    names = list(names)
    _check_count(graph, names)
    return reduce(crossed, ({name: _states(graph, name)} for name in names), {})


def crossed(first: Values, second: Values) -> dict[str, Tensor]:
    """Pair every row of the first tensors with every row of the second; the second's run faster."""
    n, m = _rows(first), _rows(second)
    return {
        **{name: value.repeat_interleave(m, 0) for name, value in first.items()},
        **{name: value.repeat(n, *[1] * (value.ndim - 1)) for name, value in second.items()},
    }


def _states(graph: Graph, name: str) -> Tensor:
    """Return the values of one node, [S, ...]."""
    family = graph.random_nodes()[name].family
    base, positions = _base(name, family), _positions(graph, name)
    count = prod(positions)
    digits = torch.arange(base**count)[:, None] // base ** torch.arange(count) % base
    digits = digits.reshape(-1, *positions)
    if isinstance(family, Categorical):
        digits = torch.nn.functional.one_hot(digits, base)
    return digits.to(graph.like)


def _base(name: str, family: Family) -> int:
    """Return how many values one position of a node has."""
    if isinstance(family, Bernoulli):
        return 2
    if isinstance(family, Categorical):
        return family.shape[-1]
    raise ConfigError(f"node {name!r}: its states cannot be listed; allowed: Bernoulli, Categorical, got {family}")


def _positions(graph: Graph, name: str) -> tuple[int, ...]:
    """Return the shape of what is chosen separately in the value of a node."""
    family = graph.random_nodes()[name].family
    shape = family.shape[:-1] if isinstance(family, Categorical) else family.shape
    return (graph.scan.steps, *shape) if graph.scan is not None and graph.in_sequence(name) else shape


def _count(graph: Graph, names: Iterable[str]) -> int:
    random = graph.random_nodes()
    return prod(_base(name, random[name].family) ** prod(_positions(graph, name)) for name in names)


def _check_count(graph: Graph, names: list[str]) -> None:
    if _count(graph, names) > LIMIT:
        raise ConfigError(f"nodes {', '.join(dict.fromkeys(names))} have more than {LIMIT} states together")


def _log_joint(graph: Graph, rows: Values, inputs: Values) -> Tensor:
    """Return the log density of values of all random nodes, [n]."""
    given = {name: rows[name] for name in inputs}
    forced = {name: value for name, value in rows.items() if name not in inputs}
    distributions = graph.rollout({}, given, forced=forced).distributions
    logs = [per_sample(distributions[name].log_prob(value), "sum") for name, value in forced.items()]
    return torch.stack(logs).sum(0)


def _rows(values: Mapping[str, Tensor]) -> int:
    return len(next(iter(values.values()))) if values else 1


# ---------------------------------------------------------------- affine maps


def _affine_values(graph: Graph, inputs: Values | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the values of random nodes as affine functions of all noise."""
    _check_normal(graph)

    def values(noise: Values, repeated: Values) -> dict[str, Tensor]:
        trace = graph.rollout(noise, repeated)
        return {name: trace.values[name] for name in _families(graph)}

    return _affine(values, graph, inputs or {})


def _affine(
    compute: Callable[[Values, Values], dict[str, Tensor]], graph: Graph, inputs: Values
) -> dict[str, tuple[Tensor, Tensor]]:
    """Find affine functions of a graph's noise, one for each row of the inputs.

    Args:
        compute: called with noise and inputs; returns values [n, ...] by name.
        graph: whose noise it is.
        inputs: [b, ...] each.

    Returns:
        By name, the values at zero noise [b, d] and the matrix [b, d, k] that multiplies the noise.

    Raises:
        ConfigError: a value is no affine function of the noise.
    """
    like: Tensor = graph.like
    shapes = {name: one.shape[1:] for name, one in graph.noise(1, leaves=True).items()}
    k = sum(prod(shape) for shape in shapes.values())
    others = 2 * torch.randn(POINTS, k, generator=torch.Generator().manual_seed(0))
    points = torch.cat([torch.zeros(1, k), torch.eye(k), others]).to(like)
    pieces = points.split([prod(shape) for shape in shapes.values()], 1)
    noise = {name: piece.reshape(-1, *shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
    rows = crossed(inputs, noise)
    computed = compute({name: rows[name] for name in shapes}, {name: rows[name] for name in inputs})
    tolerance = torch.finfo(like.dtype).eps ** 0.5
    found = {}
    for name, value in computed.items():
        value = value.reshape(_rows(inputs), len(points), -1)
        offset = value[:, 0]
        matrix = (value[:, 1 : k + 1] - offset[:, None]).mT
        error = float((offset[:, None] + points[k + 1 :] @ matrix.mT - value[:, k + 1 :]).detach().abs().max())
        if not error <= tolerance * (1 + float(value.detach().abs().max())):
            raise ConfigError(f"node {name!r} must be an affine function of the noise, but is off by {error:.2g}")
        found[name] = (offset, matrix)
    return found


# ---------------------------------------------------------------- which graphs


def _families(graph: Graph) -> dict[str, Family]:
    """Return the families of random nodes; points only where they are targets."""
    nodes = graph.random_nodes().values()
    return {node.name: node.family for node in nodes if node.family.is_random or isinstance(node, Target)}


def _random_latents(graph: Graph) -> list[str]:
    return [name for name in _families(graph) if name in graph.latents()]


def _lists_latents(graph: Graph) -> bool:
    """Return whether all random latents are discrete."""
    return all(graph.latents()[name].family.is_discrete for name in _random_latents(graph))


def _is_listable(graph: Graph) -> bool:
    """Return whether the states of all random nodes can be listed."""
    families = _families(graph)
    return all(family.is_discrete for family in families.values()) and _count(graph, families) <= LIMIT


def _check_normal(graph: Graph) -> None:
    for name, family in _families(graph).items():
        if not isinstance(family, Normal):
            raise ConfigError(f"node {name!r}: a linear normal graph has only Normal nodes, got {family}")


def _check_densities(graph: Graph) -> None:
    point = next((name for name, node in graph.targets().items() if not node.family.is_random), None)
    if point is not None:
        raise ConfigError(f"target {point!r} is a Delta, which has no density")
