"""Gradients through the student's bits and classes, on noise that it shares with the teacher.

A value 1[u < p] is a step in p: the surrogate loss L_sd on hard values has no gradient for what lies before them. Two
samplers put a biased gradient in its place (``straight_through``, ``gumbel_softmax``), ``reinforce`` an unbiased one of
larger variance, and :func:`kdzoo.graphical_models.enumeration.enumerated` the exact one.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Bernoulli, Categorical, DiscretizedLogistic, Family, gumbel_noise
from kdzoo.graphical_models.graph import Graph
from kdzoo.graphical_models.marginal import noise_interval
from kdzoo.graphical_models.nodes import Hidden, Random
from kdzoo.graphical_models.paired import Pair, check_partners
from kdzoo.graphical_models.tasks import Sampler

# ---------------------------------------------------------------- samplers


def straight_through(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
    """Return the family's own value; the gradient of bits and classes is that of their probabilities.

    Bengio, Leonard & Courville 2013, Estimating or propagating gradients through stochastic neurons, section 4.
    """
    value = family.sample(raw, noise)
    if isinstance(family, Bernoulli):
        chance = raw.sigmoid()
    elif isinstance(family, Categorical):
        chance = raw.softmax(-1)
    else:
        return value
    return value + (chance - chance.detach())


def gumbel_softmax(temperature: float) -> Sampler:
    """Return a sampler that relaxes bits and classes of the same noise; the hard value is its limit for temperature 0.

    Jang, Gu & Poole 2017, Categorical reparameterization with Gumbel-softmax, equation 2; Maddison, Mnih & Teh 2017,
    The concrete distribution, equation 16 for bits: sigmoid((logit p - logit u) / temperature). The sampler raises a
    ConfigError for classes that are not the largest of logits with Gumbel noise.

    Args:
        temperature: finite, > 0.
    """
    temperature = validation.positive("temperature", temperature)

    def relaxed(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
        if isinstance(family, Bernoulli):
            limits = torch.finfo(noise.dtype)
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

    Given the teacher's roll-out, the student's bit is random: with p and q the chances of teacher and student,
    P(1 | 1) = min(p, q) / p and P(1 | 0) = max(q - p, 0) / (1 - p); of classes the intervals of the uniform number that
    lead to both are intersected. The surrogate adds, for every node, (its divergence - the mean of those of the
    input's other samples) times the gradient of the log of these chances, of the discrete latents that it depends on
    (Williams 1992, Simple statistical gradient-following algorithms; the baseline of Kool, van Hoof & Welling 2019,
    Buy 4 REINFORCE samples, get a baseline for free). The gradients of the nodes' own nets and of continuous latents
    are kept.

    The divergences may be those of targets and of latents. For the latter the gradient without this function leaves out
    that a latent's distribution depends on the latents before it: it fits each net to the parents that it is given.

    Args:
        values: by node, [b * samples], of :func:`kdzoo.graphical_models.paired.node_divergence` of the pair.
        pair: rolled out on independent noise for each row, the student on its own hard latents; the samples of an
            input are next to each other.
        teacher: of the pair.
        student: of the pair.
        samples: of each input, >= 2.

    Returns:
        By node [b], the means over the samples.

    Raises:
        ConfigError: a model has a sequence, the models have different latents, the student's values are not hard, a
            discrete value is not the quantile of a uniform number, or the rows are no multiple of ``samples``.
    """
    samples = validation.integer("samples", samples, 2)
    check_partners(teacher, student)
    scores: dict[str, Tensor] = {}
    found = {}
    for name, value in values.items():
        if len(value) % samples:
            raise ConfigError(f"rows of the pair must be a multiple of samples = {samples}, got {len(value)}")
        score = torch.zeros_like(value)
        for latent in discrete_ancestors(name, student):
            if latent not in scores:
                scores[latent] = _log_chance(latent, pair, teacher, student)
            score = score + scores[latent]
        grouped = value.reshape(-1, samples)
        others = (grouped.sum(1, keepdim=True) - grouped) / (samples - 1)
        surrogate = (grouped - others).detach() * score.reshape(-1, samples)
        found[name] = (grouped + (surrogate - surrogate.detach())).mean(1)
    return found


def _log_chance(name: str, pair: Pair, teacher: Graph, student: Graph) -> Tensor:
    """Return the log of the chance of the student's value given the teacher's, [n], up to a constant."""
    own = pair.student.values[name]
    if own.requires_grad:
        raise ConfigError(f"latent {name!r} of the student must have hard values, without a gradient")
    family = teacher.latents()[name].family
    starts, ends = noise_interval(name, family, pair.teacher.raw[name], pair.teacher.values[name])
    starts, ends = starts.detach(), ends.detach()
    first, last = noise_interval(name, student.latents()[name].family, pair.student.raw[name], own)
    shared = torch.minimum(ends, last) - torch.maximum(starts, first)
    return shared.clamp_min(torch.finfo(shared.dtype).tiny).log().reshape(len(own), -1).sum(1)


# ---------------------------------------------------------------- what depends on what


def discrete_ancestors(name: str, *graphs: Graph) -> list[str]:
    """Return the latents without a gradient that a node's distribution depends on where the targets are given.

    Args:
        name: of the node.
        *graphs: models with the same targets and latents; the names are in the order of the last.

    Raises:
        ConfigError: a model has a sequence.
    """
    if any(graph.scan is not None for graph in graphs):
        raise ConfigError(f"the discrete latents before {name!r} cannot be followed in a sequence (Scan)")
    behind = ancestry(name, *graphs, ends=graphs[-1].targets()) - {name}
    latents = {latent: node.family for latent, node in graphs[-1].latents().items() if latent in behind}
    return [
        latent for latent, family in latents.items() if family.is_discrete or isinstance(family, DiscretizedLogistic)
    ]


def ancestry(name: str, *graphs: Graph, ends: Collection[str] = ()) -> set[str]:
    """Return a node and its ancestors in any of the models.

    Args:
        name: of the node.
        *graphs: models whose nodes are named alike.
        ends: nodes at which a path ends; they are left out.
    """
    parents: dict[str, set[str]] = {}
    for child, parent in _edges(graphs):
        parents.setdefault(child, set()).add(parent)
    found, waiting = {name}, [name]
    while waiting:
        new = parents.get(waiting.pop(), set()) - found - set(ends)
        found |= new
        waiting += new
    return found


def _edges(graphs: Collection[Graph]) -> Iterator[tuple[str, str]]:
    """Yield every node with each of its parents."""
    for graph in graphs:
        for node in graph.nodes():
            if isinstance(node, Hidden | Random):
                yield from ((node.name, parent) for parent in node.conditional.parents)
