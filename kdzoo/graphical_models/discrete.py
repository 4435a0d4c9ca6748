"""Gradients through the student's bits and classes, on noise that it shares with the teacher.

A bit 1[u < p] is a step function of p, so the surrogate loss L_sd on hard values has no gradient with respect to the
networks before them. Two samplers replace it by a biased gradient (``straight_through``, ``gumbel_softmax``),
``reinforce`` by an unbiased one with more variance, and
:func:`kdzoo.graphical_models.enumeration.enumerated_divergences` computes the exact one.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Bernoulli, Categorical, DiscretizedLogistic, Family, gumbel_noise
from kdzoo.graphical_models.graph import Graph
from kdzoo.graphical_models.nodes import Hidden, Random
from kdzoo.graphical_models.paired import Pair, check_compatible
from kdzoo.graphical_models.states import noise_interval
from kdzoo.graphical_models.tasks import Sampler

# ---------------------------------------------------------------- samplers


def straight_through(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
    """Return the family's own value; the gradient of bits and classes is that of their probabilities.

    References:
        Bengio, Leonard & Courville 2013, Estimating or propagating gradients through stochastic neurons, section 4.
    """
    value = family.sample(raw, noise)
    if isinstance(family, Bernoulli):
        probability = raw.sigmoid()
    elif isinstance(family, Categorical):
        probability = raw.softmax(-1)
    else:
        return value
    return with_gradient(value, probability)


def gumbel_softmax(temperature: float) -> Sampler:
    """Return a sampler that relaxes bits and classes; the hard value of the same noise is its limit at temperature 0.

    Bits are sigmoid((logit p - logit u) / temperature), classes softmax((logits + Gumbel noise) / temperature). The
    sampler raises a ConfigError for classes whose family does not use Gumbel noise.

    Args:
        temperature: Temperature, finite and > 0. Low values approach hard values, with more variance in the gradient.

    Raises:
        ConfigError: If the temperature is out of range.

    References:
        Jang, Gu & Poole 2017, Categorical reparameterization with Gumbel-softmax, equation 2.
        Maddison, Mnih & Teh 2017, The concrete distribution, equation 16 (bits).
    """
    temperature = validation.positive("temperature", temperature)

    def relaxed(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
        if isinstance(family, Bernoulli):
            limits = torch.finfo(noise.dtype)  # keeps logit u finite for u = 0 and u = 1
            return ((raw - noise.clamp(limits.tiny, 1 - limits.eps / 2).logit()) / temperature).sigmoid()
        if not isinstance(family, Categorical):
            return family.sample(raw, noise)
        if not family.gumbel:
            raise ConfigError(f"gumbel_softmax needs Categorical values with gumbel=True, got {family}")
        return ((raw + gumbel_noise(noise)) / temperature).softmax(-1)

    return relaxed


# ---------------------------------------------------------------- the score function


def reinforce(
    values: Mapping[str, Tensor], pair: Pair, teacher: Graph, student: Graph, *, samples: int
) -> dict[str, Tensor]:
    """Return the means of divergences over samples, with the gradient of their expectations.

    Given the teacher's value on the same noise, the student's bit is random. With the probabilities p of the teacher
    and q of the student, P(1 | 1) = min(p, q) / p and P(1 | 0) = max(q - p, 0) / (1 - p). For classes, the intervals
    of the uniform number that lead to the two values are intersected. For every node the surrogate adds the gradient
    of the log of these probabilities, over the discrete latents that the node depends on, times (the node's divergence
    minus the mean divergence of the input's other samples). Gradients of the nodes' own networks and of continuous
    latents are kept.

    The divergences can be those of targets and of latents. Without this function the gradient of a latent's divergence
    ignores that the latent's distribution depends on earlier latents: it fits each network for given parents.

    Args:
        values: By node, ``[b * samples]``, results of :func:`kdzoo.graphical_models.paired.node_divergence`.
        pair: Roll-outs on independent noise for each row, the student on its own hard latents. The samples of an input
            are adjacent rows.
        teacher: Teacher of the pair.
        student: Student of the pair.
        samples: Number of samples of each input, >= 2.

    Returns:
        By node ``[b]``, the means over the samples.

    Raises:
        ConfigError: If a model has a sequence, the models have different latents, the student's values are not hard, a
            discrete value is not the quantile of a uniform number, or the number of rows is not a multiple of
            ``samples``.

    References:
        Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Kool, van Hoof & Welling 2019, Buy 4 REINFORCE samples, get a baseline for free (the baseline).
    """
    samples = validation.integer("samples", samples, 2)
    check_compatible(teacher, student)
    scores: dict[str, Tensor] = {}
    means = {}
    for name, value in values.items():
        if len(value) % samples:
            raise ConfigError(f"rows of the pair must be a multiple of samples = {samples}, got {len(value)}")
        score = torch.zeros_like(value)
        for latent in discrete_ancestors(name, student):
            if latent not in scores:
                scores[latent] = _log_probability(latent, pair, teacher, student)
            score = score + scores[latent]
        rows, score = value.reshape(-1, samples), score.reshape(-1, samples)
        means[name] = with_gradient(rows, (rows - leave_one_out(rows)).detach() * score).mean(1)
    return means


def leave_one_out(values: Tensor) -> Tensor:
    """Return the baseline of each of several samples: the mean of the others, which keeps the gradient unbiased.

    Args:
        values: Values of samples of the same expectation, ``[b, samples, ...]``, at least 2 samples.

    References:
        Kool, van Hoof & Welling 2019, Buy 4 REINFORCE samples, get a baseline for free.
    """
    return (values.sum(1, keepdim=True) - values) / (values.shape[1] - 1)


def with_gradient(values: Tensor, surrogate: Tensor) -> Tensor:
    """Return values to which a surrogate ``[...]`` of the same shape adds its gradient, but not its value."""
    return values + (surrogate - surrogate.detach())


def _log_probability(name: str, pair: Pair, teacher: Graph, student: Graph) -> Tensor:
    """Return the log-probability of the student's value given the teacher's, ``[n]``, up to a constant."""
    student_value = pair.student.values[name]
    if student_value.requires_grad:
        raise ConfigError(f"latent {name!r} of the student must have hard values, without a gradient")
    family = teacher.latents()[name].family
    t_low, t_high = noise_interval(name, family, pair.teacher.raw[name], pair.teacher.values[name])
    t_low, t_high = t_low.detach(), t_high.detach()
    s_low, s_high = noise_interval(name, student.latents()[name].family, pair.student.raw[name], student_value)
    shared = torch.minimum(t_high, s_high) - torch.maximum(t_low, s_low)
    # The drawn noise lies in both intervals, so the length is positive except for rounding; the clamp keeps log finite.
    return shared.clamp_min(torch.finfo(shared.dtype).tiny).log().reshape(len(student_value), -1).sum(1)


# ---------------------------------------------------------------- dependencies between nodes


def discrete_ancestors(name: str, *graphs: Graph) -> list[str]:
    """Return the latents without a gradient that a node's distribution depends on if the targets are given.

    Args:
        name: Name of the node.
        *graphs: Models with the same targets and latents; the result is in the order of the last one.

    Raises:
        ConfigError: If a model has a sequence.
    """
    if any(graph.scan is not None for graph in graphs):
        raise ConfigError(f"the discrete latents before {name!r} cannot be followed in a sequence (Scan)")
    ancestors = ancestry(name, *graphs, ends=graphs[-1].targets()) - {name}
    latents = {latent: node.family for latent, node in graphs[-1].latents().items() if latent in ancestors}
    # Values on a grid are numbers, but rounding removes their gradient too.
    return [
        latent for latent, family in latents.items() if family.is_discrete or isinstance(family, DiscretizedLogistic)
    ]


def ancestry(name: str, *graphs: Graph, ends: Collection[str] = ()) -> set[str]:
    """Return a node and its ancestors in any of the models.

    Args:
        name: Name of the node.
        *graphs: Models that use the same names for corresponding nodes.
        ends: Nodes that are left out, together with ancestors that can only be reached through them.
    """
    parents: dict[str, set[str]] = {}
    for child, parent in _edges(graphs):
        parents.setdefault(child, set()).add(parent)
    visited, pending = {name}, [name]
    while pending:
        new = parents.get(pending.pop(), set()) - visited - set(ends)
        visited |= new
        pending += new
    return visited


def _edges(graphs: Collection[Graph]) -> Iterator[tuple[str, str]]:
    """Yield every node with each of its parents."""
    for graph in graphs:
        for node in graph.nodes():
            if isinstance(node, Hidden | Random):
                yield from ((node.name, parent) for parent in node.conditional.parents)
