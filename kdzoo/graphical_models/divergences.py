"""Divergences between two distributions of the same family, one value for each element of an event.

``DIVERGENCES[name]`` is a table of functions by the class of both distributions; :func:`divergence` looks one up.

======  ==========================================================================================================
kl      KL(p || q) in nats
w2      squared 2-Wasserstein distance: squared difference of means and of deviations for normal distributions,
        squared difference of values for points, squared difference of quantile functions for values on a grid;
        for bits and classes the optimal transport cost with distance 1 between different values
mmd     squared maximum mean discrepancy under the linear kernel: squared difference of means
logits  squared difference of the logits of bits and classes; those of classes are centred (Ba & Caruana 2014)
======  ==========================================================================================================

KL, MMD and the *squared* W2 distance are jointly convex, so their mean over the noise bounds the divergence of the
marginals from above (``BOUND_PRESERVING``). The W2 distance without the square does not: if p is 0 and q is 0 or 1 with
equal probability, the mean distance is 0.5 and that of the mixtures 0.71. Neither does a difference of logits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, OneHotCategorical
from torch.nn.functional import mse_loss, softplus

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.distributions import Delta, DiscretizedLogistic, unexpand

Divergence = Callable[[Any, Any], Tensor]


def kl_normal(p: Normal, q: Normal) -> Tensor:
    """Return KL(p || q) of normal distributions, exactly 0 where they are equal."""
    # A fixed deviation is an expanded number: its logarithm and square are computed once instead of for every pixel.
    scale = unexpand(q.scale)
    ratio = (unexpand(p.scale) / scale).square()
    return _squared_difference(p.loc, q.loc) * (0.5 / scale.square()) + 0.5 * (ratio - 1 - ratio.log())


def _squared_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return (a - b)^2; ``mse_loss`` needs one kernel in each direction, the plain expression two."""
    a, b = torch.broadcast_tensors(a, b)
    return mse_loss(a, b, reduction="none")


def kl_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return KL(p || q) of bits, finite for any finite logits."""
    p_logits, q_logits = p.logits, q.logits
    probability = p_logits.sigmoid()
    # -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x), which do not overflow.
    of_one = softplus(-q_logits) - softplus(-p_logits)
    of_zero = softplus(q_logits) - softplus(p_logits)
    return probability * of_one + (1 - probability) * of_zero


def kl_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return KL(p || q) of classes; classes with probability 0 under p contribute 0."""
    return _kl_of_log_probs(p.logits.log_softmax(-1), q.logits.log_softmax(-1))


def kl_discretized_logistic(p: DiscretizedLogistic, q: DiscretizedLogistic) -> Tensor:
    """Return KL(p || q), a sum over the grid."""
    return _kl_of_log_probs(p.log_probs(), q.log_probs())


def _kl_of_log_probs(p: Tensor, q: Tensor) -> Tensor:
    """Return the sum of p (log p - log q) over the last dimension of log-probabilities."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)  # 0 log 0 is 0, not nan


def kl_delta(p: Delta, q: Delta) -> Tensor:
    """Reject the KL of point masses, which is infinite where they differ.

    Raises:
        ConfigError: Always.
    """
    del p, q
    raise ConfigError("kl between deltas is infinite where they differ; allowed: w2 or mmd")


def w2_normal(p: Normal, q: Normal) -> Tensor:
    """Return the squared 2-Wasserstein distance of normal distributions."""
    return _squared_difference(p.loc, q.loc) + _squared_difference(p.scale, q.scale)


def w2_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return the mass that must move between 0 and 1."""
    return (p.logits.sigmoid() - q.logits.sigmoid()).abs()


def w2_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the mass that must move between classes, the total variation distance."""
    return 0.5 * (p.logits.softmax(-1) - q.logits.softmax(-1)).abs().sum(-1)


def w2_delta(p: Delta, q: Delta) -> Tensor:
    """Return the squared difference of the values."""
    return _squared_difference(p.value, q.value)


def w2_discretized_logistic(p: DiscretizedLogistic, q: DiscretizedLogistic) -> Tensor:
    """Return the integral of the squared difference of the quantile functions, which are step functions."""
    p_cumulative, q_cumulative = (d.log_probs().exp().cumsum(-1) for d in (p, q))
    # Both functions are constant between neighbouring edges, so the integral is a sum over these intervals.
    edges = torch.cat([p_cumulative, q_cumulative], -1).clamp(0, 1).sort(-1).values
    widths = edges.diff(dim=-1, prepend=torch.zeros_like(edges[..., :1]))
    middles = edges - widths / 2
    # The bin at a probability is piecewise constant: the gradient comes from the widths alone.
    bins = [torch.searchsorted(c.contiguous().detach(), middles.detach()) for c in (p_cumulative, q_cumulative)]
    p_quantiles, q_quantiles = (p.grid[index.clamp_max(p.bins - 1)] for index in bins)
    return (widths * (p_quantiles - q_quantiles).square()).sum(-1)


def mmd_means(p: Distribution, q: Distribution) -> Tensor:
    """Return the squared difference of the means, for families whose mean is an element-wise tensor."""
    return _squared_difference(p.mean, q.mean)


def mmd_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the squared distance of the probability vectors."""
    return (p.logits.softmax(-1) - q.logits.softmax(-1)).square().sum(-1)


def logits_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    """Return the squared difference of the logits."""
    return (p.logits - q.logits).square()


def logits_categorical(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """Return the squared distance of the centred logits."""
    difference = p.logits - q.logits
    # A constant that is added to all logits does not change the probabilities; centring removes it.
    return (difference - difference.mean(-1, keepdim=True)).square().sum(-1)


BOUND_PRESERVING = frozenset({"kl", "w2", "mmd"})
"""Divergences whose mean over the noise bounds the divergence of the marginals from above."""
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
    """Return a divergence for each element, ``[..., *shape]`` (without the classes of one-hot values).

    Args:
        name: Key of ``DIVERGENCES``.
        p: Distribution of the teacher.
        q: Distribution of the student, of the same class.

    Raises:
        ConfigError: If the name is unknown, the distributions are of different classes, or it is not defined for them.
    """
    if name not in DIVERGENCES:
        raise ConfigError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {name!r}")
    if type(p) is not type(q) or type(p) not in DIVERGENCES[name]:
        raise ConfigError(f"there is no {name} between {type(p).__name__} and {type(q).__name__}")
    return DIVERGENCES[name][type(p)](p, q)


def per_sample(values: Tensor, reduction: str, *, lengths: Tensor | None = None) -> Tensor:
    """Reduce one value for each element to one for each sample, ``[b]``.

    Args:
        values: Values ``[b, ...]``; with ``lengths`` ``[b, T, ...]``.
        reduction: ``sum`` or ``mean`` over the elements of a sample.
        lengths: Number of valid steps of each sequence, int64 ``[b]``; later steps do not count.
    """
    if lengths is not None:
        valid = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        values = values.reshape(*values.shape[:2], -1) * valid[..., None]
        total = values.sum((1, 2))
        # An empty sequence has the mean 0 rather than 0 / 0.
        return total if reduction == "sum" else total / (lengths.clamp_min(1) * values.shape[2])
    flat = values.reshape(len(values), -1)
    return flat.sum(1) if reduction == "sum" else flat.mean(1)
