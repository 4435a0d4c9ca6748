"""Distributions that torch lacks: a point mass, and a logistic distribution on a grid."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


def unexpand(expanded: Tensor) -> Tensor:
    """Return a tensor with size 1 along expanded dimensions; it broadcasts to the argument.

    A fixed deviation is one number that torch expands to the shape of the mean. Functions of it need to be computed
    only once.
    """
    return expanded[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in expanded.stride())]


class Delta(Distribution):
    """A point mass.

    Args:
        value: The only possible value, ``[...]``.
    """

    arg_constraints = {"value": constraints.real}
    support = constraints.real

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The value."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Zeros."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return the value, ``[*sample_shape, ...]``."""
        return self.value.expand(*sample_shape, *self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return 0 where the argument equals the value, and -inf elsewhere."""
        return torch.where(value == self.value, 0.0, -math.inf).to(self.value)


class DiscretizedLogistic(Distribution):
    """A logistic variable, rounded to one of ``bins`` equidistant values in [0, 1].

    The lowest and the highest value have the mass of the tails.

    Args:
        loc: Location of the logistic distribution, ``[...]``.
        scale: Scale of the logistic distribution, ``[...]``, > 0.
        bins: Number of values, >= 2.

    References:
        Salimans, Karpathy, Chen & Kingma 2017, PixelCNN++, equation 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, scale: Tensor, bins: int = 256) -> None:
        self.loc, self.scale, self.bins = loc, scale, bins
        super().__init__(torch.broadcast_shapes(loc.shape, scale.shape), validate_args=False)

    @property
    def grid(self) -> Tensor:
        """The possible values, ``[bins]``."""
        return torch.linspace(0, 1, self.bins, dtype=self.loc.dtype, device=self.loc.device)

    def log_probs(self) -> Tensor:
        """Return the log-probability of every value of the grid, ``[..., bins]``."""
        return self._log_prob(self.grid, self.loc[..., None], self.scale[..., None])

    @property
    def mean(self) -> Tensor:
        """The mean over the grid."""
        return (self.log_probs().exp() * self.grid).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance over the grid."""
        return (self.log_probs().exp() * (self.grid - self.mean[..., None]).square()).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return values of the grid, ``[*sample_shape, ...]``."""
        shape = (*sample_shape, *self.batch_shape)
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def icdf(self, probability: Tensor) -> Tensor:
        """Return the quantile of the logistic distribution, rounded to the grid."""
        tiny = torch.finfo(probability.dtype).eps
        # logit(0) and logit(1) are infinite; the clamped quantile lies far outside [0, 1] for sensible scales anyway.
        quantile = self.loc + self.scale * probability.clamp(tiny, 1 - tiny).logit()
        return (quantile.clamp(0, 1) * (self.bins - 1)).round() / (self.bins - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of values of the grid."""
        return self._log_prob(value, self.loc, self.scale)

    def _log_prob(self, value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """Return the log of the logistic mass within half a bin of the value; outer bins extend to infinity."""
        half = 0.5 / (self.bins - 1)
        above, below = (value + half - loc) / scale, (value - half - loc) / scale
        # log(sigmoid(above) - sigmoid(below)) without a difference of two numbers close to 0 or 1, which would cancel
        # far from the location:
        # sigmoid(a) - sigmoid(b) = (1 - exp(b - a)) sigmoid(a) sigmoid(-b)
        softplus = torch.nn.functional.softplus
        log_mass = torch.log(-torch.expm1(below - above)) - softplus(-above) - softplus(below)
        lowest = torch.nn.functional.logsigmoid(above)
        highest = torch.nn.functional.logsigmoid(-below)
        return torch.where(value < half, lowest, torch.where(value > 1 - half, highest, log_mass))
