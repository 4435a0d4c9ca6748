"""Divergences between two distributions of the same family, one value for each element of an event.

``DIVERGENCES[name]`` is a table of functions by the class of both distributions; ``divergence`` looks one up.

======  ==========================================================================================================
kl      KL(p || q), nats
w2      squared 2-Wasserstein distance: squared difference of means and of deviations for normal distributions,
        squared difference of values for points, squared difference of quantile functions for values on a grid;
        of bits and classes the optimal cost with distance 1 between different values
mmd     squared maximum mean discrepancy under the linear kernel: squared difference of means
logits  squared difference of the logits of bits and classes, those of classes centred (Ba & Caruana 2014)
======  ==========================================================================================================

KL, MMD and the W2 distance *squared* are jointly convex, so their mean over the noise bounds the divergence of the
marginals (``BOUNDING``); the plain W2 distance is not (with equal probabilities of (0, 0) and (0, 1): 0.71 > 0.5), and
neither is a difference of logits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, OneHotCategorical
from torch.nn.functional import mse_loss, softplus

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.distributions import Delta, DiscretizedLogistic, compact

Divergence = Callable[[Any, Any], Tensor]


def kl_normal(p: Normal, q: Normal) -> Tensor:
    """Return KL(p || q) of normal distributions, exactly 0 where they are equal."""
    scale = compact(q.scale)
    ratio = (compact(p.scale) / scale).square()
    return _squared(p.loc, q.loc) * (0.5 / scale.square()) + 0.5 * (ratio - 1 - ratio.log())


def _squared(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared difference by one kernel there and one back."""
    one, other = torch.broadcast_tensors(one, other)
    return mse_loss(one, other, reduction="none")


def kl_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return KL(p || q) of bits, finite for any logits."""
    one, other = p.logits, q.logits
    chance = one.sigmoid()
    return chance * (softplus(-other) - softplus(-one)) + (1 - chance) * (softplus(other) - softplus(one))


def kl_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return KL(p || q) of classes; 0 log 0 is 0."""
    return _kl_of_tables(p.logits.log_softmax(-1), q.logits.log_softmax(-1))


def kl_discretized_logistic(p: DiscretizedLogistic, q: DiscretizedLogistic) -> Tensor:
    """Return KL(p || q), a sum over the grid."""
    return _kl_of_tables(p.log_probs(), q.log_probs())


def _kl_of_tables(one: Tensor, other: Tensor) -> Tensor:
    return torch.where(one > -torch.inf, one.exp() * (one - other), 0.0).sum(-1)


def kl_delta(p: Delta, q: Delta) -> Tensor:
    """Refuse: points that differ are infinitely far apart."""
    del p, q
    raise ConfigError("kl between deltas is infinite where they differ; allowed: w2 or mmd")


def w2_normal(p: Normal, q: Normal) -> Tensor:
    """Return the squared distance of normal distributions."""
    return _squared(p.loc, q.loc) + _squared(p.scale, q.scale)


def w2_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return the mass that must move between 0 and 1."""
    return (p.logits.sigmoid() - q.logits.sigmoid()).abs()


def w2_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the mass that must move between classes: the total variation."""
    return 0.5 * (p.logits.softmax(-1) - q.logits.softmax(-1)).abs().sum(-1)


def w2_delta(p: Delta, q: Delta) -> Tensor:
    """Return the squared difference."""
    return _squared(p.value, q.value)


def w2_discretized_logistic(p: DiscretizedLogistic, q: DiscretizedLogistic) -> Tensor:
    """Return the integral of the squared difference of quantile functions, which are steps on the grid."""
    one, other = (d.log_probs().exp().cumsum(-1) for d in (p, q))
    edges = torch.cat([one, other], -1).clamp(0, 1).sort(-1).values
    widths = edges.diff(dim=-1, prepend=torch.zeros_like(edges[..., :1]))
    middles = edges - widths / 2
    places = [torch.searchsorted(c.contiguous().detach(), middles.detach()) for c in (one, other)]
    first, second = (p.grid[place.clamp_max(p.bins - 1)] for place in places)
    return (widths * (first - second).square()).sum(-1)


def mmd_means(p: Distribution, q: Distribution) -> Tensor:
    """Return the squared difference of means, for families whose mean is an element-wise tensor."""
    return _squared(p.mean, q.mean)


def mmd_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the squared distance of the probabilities."""
    return (p.logits.softmax(-1) - q.logits.softmax(-1)).square().sum(-1)


def logits_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return the squared difference of the logits."""
    return (p.logits - q.logits).square()


def logits_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the squared distance of the centred logits."""
    gap = p.logits - q.logits
    return (gap - gap.mean(-1, keepdim=True)).square().sum(-1)


BOUNDING = frozenset({"kl", "w2", "mmd"})
"""Divergences whose mean over the noise bounds that of the marginals."""
DIVERGENCES: dict[str, dict[type[Any], Divergence]] = {
    "kl": {
        Normal: kl_normal,
        Bernoulli: kl_bernoulli,
        OneHotCategorical: kl_categorical,
        DiscretizedLogistic: kl_discretized_logistic,
        Delta: kl_delta,
    },
    "w2": {
        Normal: w2_normal,
        Bernoulli: w2_bernoulli,
        OneHotCategorical: w2_categorical,
        DiscretizedLogistic: w2_discretized_logistic,
        Delta: w2_delta,
    },
    "mmd": {
        Normal: mmd_means,
        Bernoulli: mmd_means,
        OneHotCategorical: mmd_categorical,
        DiscretizedLogistic: mmd_means,
        Delta: mmd_means,
    },
    "logits": {Bernoulli: logits_bernoulli, OneHotCategorical: logits_categorical},
}


def divergence(name: str, p: Distribution, q: Distribution) -> Tensor:
    """Return a divergence for each element, [..., *shape] (without the classes of one-hot values).

    Raises:
        ConfigError: the name is unknown, the distributions are of different classes, or there is none for them.
    """
    if name not in DIVERGENCES:
        raise ConfigError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {name!r}")
    if type(p) is not type(q) or type(p) not in DIVERGENCES[name]:
        raise ConfigError(f"there is no {name} between {type(p).__name__} and {type(q).__name__}")
    return DIVERGENCES[name][type(p)](p, q)


def per_sample(values: Tensor, reduction: str, *, lengths: Tensor | None = None) -> Tensor:
    """Reduce one value for each element to one for each sample.

    Args:
        values: [b, ...]; with ``lengths`` [b, T, ...].
        reduction: ``sum`` or ``mean`` over the elements of a sample.
        lengths: int64 [b], the valid steps of each sequence; those after them do not count.
    """
    if lengths is not None:
        valid = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        values = values.reshape(*values.shape[:2], -1) * valid[..., None]
        total = values.sum((1, 2))
        return total if reduction == "sum" else total / (lengths.clamp_min(1) * values.shape[2])
    flat = values.reshape(len(values), -1)
    return flat.sum(1) if reduction == "sum" else flat.mean(1)
