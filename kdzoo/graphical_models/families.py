"""Families of distributions: the raw parameters that a network returns, the noise, and the value made of both.

A value is a deterministic function of the network's output and of noise that has no parameters. Chen et al. 2023 call
this the semi-auxiliary form; for normal distributions it is the reparametrisation trick. ``raw`` is the output of the
network, ``[..., *raw_shape]``; a value is ``[..., *shape]``.
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
from kdzoo.core.batch import IGNORE
from kdzoo.core.precision import host_may_read
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.distributions import Delta as DeltaDistribution
from kdzoo.graphical_models.distributions import DiscretizedLogistic as DiscretizedLogisticDistribution

SMALLEST_SCALE = 1e-6
"""Deviation that is added to every learned one, as in the code of Chen et al. 2023; log densities stay finite."""


def positive_scale(raw: Tensor) -> Tensor:
    """Return softplus(raw) / ln 2 + 1e-6, which is positive for every raw value."""
    # The division makes the deviation 1 at a raw value of 0, so a fresh network begins near a standard normal.
    return torch.nn.functional.softplus(raw) / math.log(2) + SMALLEST_SCALE


@dataclass(frozen=True)
class Family(ABC):
    """The kind of values that a node has, and how raw parameters become their distribution.

    Args:
        shape: Shape of one value; an integer is the size of the only dimension.

    Raises:
        ConfigError: If a size is not an integer >= 1.
    """

    shape: tuple[int, ...]
    is_discrete: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    support: ClassVar[tuple[float, float] | None] = None
    """Smallest and largest value that can be observed; None for all numbers."""

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        object.__setattr__(self, "shape", validation.integers("shape", list(shape)))

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the raw parameters of one value."""
        return self.shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one value."""
        return self.shape

    @abstractmethod
    def distribution(self, raw: Tensor) -> Distribution:
        """Return the distribution with batch shape ``[..., *shape]`` (without the classes of one-hot values)."""

    def noise(self, leading: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Draw noise ``[*leading, *noise_shape]``; uniform in [0, 1) unless a family overrides this method."""
        return torch.rand(*leading, *self.noise_shape, generator=generator)

    @abstractmethod
    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return the value for this noise, ``[..., *shape]``; differentiable if the family is continuous."""

    def encode(self, observed: Tensor) -> Tensor:
        """Return observations ``[b, ...]`` as values ``[b, *shape]``.

        Raises:
            DataError: If observations have another shape, or lie outside the family's support.
        """
        # An accelerator would have to be waited for in every step; the dry run looks before the training.
        if self.support is not None and host_may_read(observed) and observed.numel():
            least, most = float(observed.min()), float(observed.max())
            if not self.support[0] <= least <= most <= self.support[1]:
                raise DataError(
                    f"{type(self).__name__} takes values in {list(self.support)}, the data are in [{least:g}, {most:g}]"
                )
        # Images may come flattened or the other way round; only the number of elements has to agree.
        if math.prod(observed.shape[1:]) == math.prod(self.shape):
            return observed.reshape(len(observed), *self.shape)
        return self._same_shape(observed)

    def _same_shape(self, observed: Tensor) -> Tensor:
        """Return the observations if they end in the family's shape."""
        if tuple(observed.shape[observed.ndim - len(self.shape) :]) != self.shape:
            raise DataError(
                f"observations of shape {tuple(observed.shape)} do not fit {type(self).__name__} {self.shape}"
            )
        return observed


class TwoParameters:
    """Mixin for families whose raw values hold two parameters, concatenated along the first dimension of a value.

    For images this is the channel dimension, so that a convolution can return both.
    """

    shape: tuple[int, ...]

    def _doubled(self) -> tuple[int, ...]:
        return (2 * self.shape[0], *self.shape[1:])

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        first, second = raw.chunk(2, dim=raw.ndim - len(self.shape))
        return first, second


@dataclass(frozen=True)
class Normal(TwoParameters, Family):
    """Independent normal values loc + scale * eps, eps ~ N(0, 1).

    Args:
        shape: Shape of one value.
        scale: Fixed deviation, > 0; None: the network returns it, in the second half of its output.

    Raises:
        ConfigError: If an argument is out of range.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            validation.positive("scale", self.scale)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the means, or of means and raw deviations if these are learned."""
        return self.shape if self.scale is not None else self._doubled()

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return mean and deviation."""
        if self.scale is not None:
            return raw, self.scale
        loc, scale = self._split(raw)
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
    """The normalised product of two normal densities; the raw value holds the raw values of both, concatenated.

    References:
        Sonderby et al. 2016, Ladder variational autoencoders, equations 17 to 19.
    """

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the raw means and deviations of both."""
        return (4 * self.shape[0], *self.shape[1:])

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the precision-weighted mean and the deviation of the product."""
        loc, raw_scale, other_loc, raw_other = raw.chunk(4, dim=raw.ndim - len(self.shape))
        scale, other = positive_scale(raw_scale), positive_scale(raw_other)
        # With variances s, t: precision 1/s + 1/t = (s + t) / (s t). This form needs no division by a small variance.
        total = scale.square() + other.square()
        return (loc * other.square() + other_loc * scale.square()) / total, scale * other * total.rsqrt()


@dataclass(frozen=True)
class Bernoulli(Family):
    """Independent bits 1[u < p] with uniform noise u; the network returns the logits of p.

    Observations can be any numbers from 0 to 1, such as grey values; their log-probability is then the negative cross
    entropy.
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
    """One of several classes, as a one-hot vector; the network returns logits.

    The noise is one uniform number for each class. By default the value is the quantile of the first number, which
    exact enumeration and REINFORCE require. With ``gumbel`` it is the largest logit after Gumbel noise is added
    (Gumbel 1954), which is the limit of the Gumbel-softmax at temperature 0.

    Args:
        shape: Shape of one value, classes last.
        gumbel: Whether the value is chosen by Gumbel noise instead of the quantile.
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
            cumulative = raw.softmax(-1).cumsum(-1)
            # Rounding can leave the last cumulative sum slightly below 1.
            chosen = (noise[..., :1] >= cumulative).sum(-1).clamp_max(self.shape[-1] - 1)
        return self._one_hot(chosen, raw.dtype)

    def encode(self, observed: Tensor) -> Tensor:
        """Return one-hot vectors of class indices; one-hot vectors are returned as they are.

        Raises:
            DataError: If a class is out of range, or one-hot vectors have another shape.
        """
        if observed.is_floating_point():
            return self._same_shape(observed)
        can_check = host_may_read(observed) and observed.numel() > 0
        if can_check and not 0 <= int(observed.min()) <= int(observed.max()) < self.shape[-1]:
            hint = "; set data.labels_per_class=null to keep all labels" if int(observed.min()) == IGNORE else ""
            raise DataError(f"classes must be in 0..{self.shape[-1] - 1}, got {observed.unique().tolist()[:8]}{hint}")
        return self._one_hot(observed.long(), torch.get_default_dtype())

    def _one_hot(self, classes: Tensor, dtype: torch.dtype) -> Tensor:
        # torch's one_hot looks for the largest class, which makes the host wait for some accelerators.
        zeros = torch.zeros(*classes.shape, self.shape[-1], dtype=dtype, device=classes.device)
        return zeros.scatter(-1, classes[..., None], 1.0)


def gumbel_noise(uniform: Tensor) -> Tensor:
    """Return -log(-log u) of uniform noise, finite for u in [0, 1]."""
    # The bounds are the positive numbers closest to 0 and to 1 below it.
    limits = torch.finfo(uniform.dtype)
    return -(-uniform.clamp(limits.tiny, 1 - limits.eps / 2).log()).log()


@dataclass(frozen=True)
class DiscretizedLogistic(TwoParameters, Family):
    """Pixels in [0, 1] on a grid; the network returns means and raw scales.

    Args:
        shape: Shape of one value.
        bins: Number of values of the grid, >= 2; 256 for 8-bit images.

    Raises:
        ConfigError: If ``bins`` is not an integer >= 2.
    """

    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.integer("bins", self.bins, 2)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the means and raw scales."""
        return self._doubled()

    def distribution(self, raw: Tensor) -> DiscretizedLogisticDistribution:
        """Return the distribution on the grid."""
        loc, scale = self._split(raw)
        return DiscretizedLogisticDistribution(loc, positive_scale(scale), self.bins)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return the quantiles of the noise, without gradient: rounding to the grid has none."""
        return self.distribution(raw.detach()).icdf(noise)


@dataclass(frozen=True)
class Delta(Family):
    """A point mass: the value is the network's output and there is no noise."""

    is_random: ClassVar[bool] = False

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of an empty vector, since there is no noise."""
        return (0,)

    def distribution(self, raw: Tensor) -> DeltaDistribution:
        """Return the point mass."""
        return DeltaDistribution(raw)

    def sample(self, raw: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """Return the value."""
        return raw


def check_same_family(name: str, teacher: Family, student: Family) -> None:
    """Reject two nodes whose values cannot be compared or made of the same noise.

    Args:
        name: Name of the node, for the error.
        teacher: Family of the teacher's node.
        student: Family of the student's node.

    Raises:
        ConfigError: If families, shapes, grids or the use of the noise differ.
    """
    # The scale of normal families may differ: it is part of the distribution and not of the kind of value.
    teacher_text, student_text = (
        f"{type(family).__name__} {family.shape}"
        + (f" of {family.bins} bins" if isinstance(family, DiscretizedLogistic) else "")
        + (" by Gumbel noise" if isinstance(family, Categorical) and family.gumbel else "")
        for family in (teacher, student)
    )
    if teacher_text != student_text:
        raise ConfigError(
            f"node {name!r}: the teacher has {teacher_text}, the student {student_text}; "
            "allowed: the same family and shape"
        )
