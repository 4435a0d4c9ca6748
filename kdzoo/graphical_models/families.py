"""Families of distributions: what a node's net returns, the noise that its value is made of, and how.

A value is a deterministic function of the net's output and of noise that has no parameters: the semi-auxiliary form.
``raw`` is what the net returns, [..., *raw_shape]; a value is [..., *shape].
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.distributions import Delta as DeltaDistribution
from kdzoo.graphical_models.distributions import DiscretizedLogistic as DiscretizedLogisticDistribution

SMALLEST_SCALE = 1e-6


def positive_scale(raw: Tensor) -> Tensor:
    """Return softplus(raw) / ln 2 + 1e-6: about 1 for a raw value of 0, and never 0."""
    return torch.nn.functional.softplus(raw) / math.log(2) + SMALLEST_SCALE


@dataclass(frozen=True)
class Family(ABC):
    """What the values of a node are, and how the net's output becomes their distribution.

    Args:
        shape: of one value.
    """

    shape: tuple[int, ...]
    is_discrete: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    support: ClassVar[tuple[float, float] | None] = None
    """Least and greatest value that may be observed; None for all numbers."""

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        object.__setattr__(self, "shape", validation.integers("shape", list(shape)))

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of what the net returns for one value."""
        return self.shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one value."""
        return self.shape

    @abstractmethod
    def distribution(self, raw: Tensor) -> Distribution:
        """Return the distribution with batch shape [..., *shape] (without the classes of one-hot values)."""

    def noise(self, leading: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Draw noise ``[*leading, *noise_shape]`` without parameters: uniform, unless a family says otherwise."""
        return torch.rand(*leading, *self.noise_shape, generator=generator)

    @abstractmethod
    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return the value that the noise becomes, [..., *shape]; differentiable where the family is continuous."""

    def encode(self, observed: Tensor) -> Tensor:
        """Return observations [b, ...] as values.

        Raises:
            DataError: they have another shape, or lie outside of the family's support.
        """
        if self.support is not None and observed.numel():
            least, most = float(observed.min()), float(observed.max())
            if not self.support[0] <= least <= most <= self.support[1]:
                raise DataError(
                    f"{type(self).__name__} takes values in {list(self.support)}, the data are in [{least:g}, {most:g}]"
                )
        if math.prod(observed.shape[1:]) == math.prod(self.shape):
            return observed.reshape(len(observed), *self.shape)
        return self._same_shape(observed)

    def _same_shape(self, observed: Tensor) -> Tensor:
        if tuple(observed.shape[observed.ndim - len(self.shape) :]) != self.shape:
            raise DataError(f"observations of shape {tuple(observed.shape)} are no {type(self).__name__} {self.shape}")
        return observed


class Halves:
    """Raw values that hold two parameters, one after the other along the first dimension of a value."""

    shape: tuple[int, ...]

    def _doubled(self) -> tuple[int, ...]:
        return (2 * self.shape[0], *self.shape[1:])

    def _halves(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        first, second = raw.chunk(2, dim=raw.ndim - len(self.shape))
        return first, second


@dataclass(frozen=True)
class Normal(Halves, Family):
    """Independent normal values loc + scale * eps, eps ~ N(0, 1).

    Args:
        shape: of one value.
        scale: fixed deviation, > 0; None: the net returns it, in the second half of its output.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            validation.positive("scale", self.scale)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Means, and raw deviations unless they are fixed."""
        return self.shape if self.scale is not None else self._doubled()

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return mean and deviation."""
        if self.scale is not None:
            return raw, self.scale
        loc, scale = self._halves(raw)
        return loc, positive_scale(scale)

    def distribution(self, raw: Tensor) -> NormalDistribution:
        """Return the normal distribution."""
        return NormalDistribution(*self.parameters(raw), validate_args=False)

    def noise(self, leading: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Draw from N(0, 1)."""
        return torch.randn(*leading, *self.shape, generator=generator)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return loc + scale * noise."""
        loc, scale = self.parameters(raw)
        return loc + scale * noise


@dataclass(frozen=True)
class MergedNormal(Normal):
    """The normalised product of two normal densities; the raw value holds the raw values of both, one after the other.

    Sonderby et al. 2016, Ladder variational autoencoders, equations 17 to 19.
    """

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Raw means and deviations of both."""
        return (4 * self.shape[0], *self.shape[1:])

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the precision-weighted mean and the deviation of the product."""
        loc, raw_scale, other_loc, raw_other = raw.chunk(4, dim=raw.ndim - len(self.shape))
        scale, other = positive_scale(raw_scale), positive_scale(raw_other)
        total = scale.square() + other.square()
        return (loc * other.square() + other_loc * scale.square()) / total, scale * other * total.rsqrt()


@dataclass(frozen=True)
class Bernoulli(Family):
    """Independent bits 1[u < p], u uniform; the net returns logits of p.

    Observations may be anything from 0 to 1, such as grey values; their log-probability is then the cross entropy.
    """

    is_discrete: ClassVar[bool] = True
    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def distribution(self, raw: Tensor) -> BernoulliDistribution:
        """Return the Bernoulli distribution."""
        return BernoulliDistribution(logits=raw, validate_args=False)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return the bits, without gradient."""
        return (noise < raw.detach().sigmoid()).to(raw)


@dataclass(frozen=True)
class Categorical(Family):
    """One of several classes, as a one-hot vector; the net returns logits.

    Noise is one uniform number for each class. The value is the quantile of the first of them; or, with ``gumbel``,
    the largest of the logits with Gumbel noise (Gumbel 1954), of which the Gumbel-softmax is a relaxation.

    Args:
        shape: of one value, the classes last.
        gumbel: how noise becomes a value.
    """

    gumbel: bool = False
    is_discrete: ClassVar[bool] = True

    def distribution(self, raw: Tensor) -> OneHotCategorical:
        """Return the categorical distribution of one-hot vectors."""
        return OneHotCategorical(logits=raw, validate_args=False)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return one-hot vectors, without gradient."""
        raw = raw.detach()
        if self.gumbel:
            chosen = (raw + gumbel_noise(noise)).argmax(-1)
        else:
            reached = raw.softmax(-1).cumsum(-1)
            chosen = (noise[..., :1] >= reached).sum(-1).clamp_max(self.shape[-1] - 1)
        return torch.nn.functional.one_hot(chosen, self.shape[-1]).to(raw)

    def encode(self, observed: Tensor) -> Tensor:
        """Return one-hot vectors of class numbers; one-hot vectors are kept."""
        if observed.is_floating_point():
            return self._same_shape(observed)
        if observed.numel() and not 0 <= int(observed.min()) <= int(observed.max()) < self.shape[-1]:
            raise DataError(f"classes must be in 0..{self.shape[-1] - 1}, got {observed.unique().tolist()[:8]}")
        return torch.nn.functional.one_hot(observed, self.shape[-1]).to(torch.get_default_dtype())


def gumbel_noise(uniform: Tensor) -> Tensor:
    """Return -log(-log u), finite for u in [0, 1]."""
    return -(-uniform.clamp(torch.finfo(uniform.dtype).tiny, 1 - torch.finfo(uniform.dtype).eps / 2).log()).log()


@dataclass(frozen=True)
class DiscretizedLogistic(Halves, Family):
    """Pixels in [0, 1] on a grid; the net returns means and raw scales.

    Args:
        shape: of one value.
        bins: number of values of the grid, >= 2.
    """

    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.integer("bins", self.bins, 2)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Means and raw scales."""
        return self._doubled()

    def distribution(self, raw: Tensor) -> DiscretizedLogisticDistribution:
        """Return the distribution on the grid."""
        loc, scale = self._halves(raw)
        return DiscretizedLogisticDistribution(loc, positive_scale(scale), self.bins)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return the quantiles of the noise, without gradient."""
        return self.distribution(raw.detach()).icdf(noise)


@dataclass(frozen=True)
class Delta(Family):
    """The net's output itself: no noise."""

    is_random: ClassVar[bool] = False

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """None: an empty vector."""
        return (0,)

    def distribution(self, raw: Tensor) -> DeltaDistribution:
        """Return the point mass."""
        return DeltaDistribution(raw)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """Return the value."""
        return raw


def check_same(name: str, teacher: Family, student: Family) -> None:
    """Refuse two nodes whose values are not of the same kind.

    Raises:
        ConfigError: the families, shapes, grids or uses of the noise differ.
    """
    theirs, own = (
        f"{type(family).__name__} {family.shape}"
        + (f" of {family.bins} bins" if isinstance(family, DiscretizedLogistic) else "")
        + (" by Gumbel noise" if isinstance(family, Categorical) and family.gumbel else "")
        for family in (teacher, student)
    )
    if theirs != own:
        raise ConfigError(
            f"node {name!r}: the teacher has {theirs}, the student {own}; allowed: the same family and shape"
        )
