"""Distributions that torch lacks: a point, and the logistic distribution of a value on a grid; values that repeat."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


def compact(expanded: Tensor) -> Tensor:
    """Return a tensor with one entry along the dimensions in which it repeats itself, which broadcasts to the same."""
    return expanded[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in expanded.stride())]


class Delta(Distribution):
    """All mass on one value.

    Args:
        value: [...], the value.
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
        """Zero."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return the value [*sample_shape, ...]."""
        return self.value.expand(*sample_shape, *self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return 0 where it is the value, and -inf elsewhere."""
        return torch.where(value == self.value, 0.0, -math.inf).to(self.value)


class DiscretizedLogistic(Distribution):
    """A logistic variable, rounded to one of ``bins`` values at equal distances in [0, 1].

    Salimans, Karpathy, Chen & Kingma 2017, PixelCNN++, equation 2: the lowest and the highest value hold the tails.

    Args:
        loc: [...], the middle of the logistic distribution.
        scale: [...], > 0.
        bins: number of values, >= 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, scale: Tensor, bins: int = 256) -> None:
        self.loc, self.scale, self.bins = loc, scale, bins
        super().__init__(torch.broadcast_shapes(loc.shape, scale.shape), validate_args=False)

    @property
    def grid(self) -> Tensor:
        """The values, [bins]."""
        return torch.linspace(0, 1, self.bins, dtype=self.loc.dtype, device=self.loc.device)

    def log_probs(self) -> Tensor:
        """Return the log-probability of every value, [..., bins]."""
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
        """Return values of the grid."""
        shape = (*sample_shape, *self.batch_shape)
        return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def icdf(self, probability: Tensor) -> Tensor:
        """Return the value of the grid to which the quantile of the logistic distribution is rounded."""
        tiny = torch.finfo(probability.dtype).eps
        quantile = self.loc + self.scale * probability.clamp(tiny, 1 - tiny).logit()
        return (quantile.clamp(0, 1) * (self.bins - 1)).round() / (self.bins - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of values of the grid."""
        return self._log_prob(value, self.loc, self.scale)

    def _log_prob(self, value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        half = 0.5 / (self.bins - 1)
        above, below = (value + half - loc) / scale, (value - half - loc) / scale
        # log(sigmoid(above) - sigmoid(below)), without a difference of two numbers near 0 or 1
        softplus = torch.nn.functional.softplus
        log_mass = torch.log(-torch.expm1(below - above)) - softplus(-above) - softplus(below)
        lowest = torch.nn.functional.logsigmoid(above)
        highest = torch.nn.functional.logsigmoid(-below)
        return torch.where(value < half, lowest, torch.where(value > 1 - half, highest, log_mass))
