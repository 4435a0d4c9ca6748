"""Distributions of initial weights, as an offset and a scale for every weight of a network.

Every initialisation here draws ``offset + scale * unit``, where ``unit`` is standard normal or uniform on [-1, 1].
The initial weights of many networks are then drawn by a single call, instead of one network at a time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError

INITS = ("xavier", "kaiming", "normal", "default")
"""Glorot & Bengio 2010, uniform; He et al. 2015, uniform; one normal distribution for all weights; torch's own."""

# Layers whose weight is a scale and starts at 1; a distribution by fan-in has no meaning for them.
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.RMSNorm)
# Layers whose ``reset_parameters`` draws weight and bias from U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)).
_FAN_IN_UNIFORM = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class InitialDistribution:
    """The distribution of a network's P initial weights.

    Attributes:
        offset: Mean ``[P]`` of every weight.
        scale: Standard deviation (normal) or half the width (uniform) of every weight ``[P]``, >= 0.
        is_normal: Whether the unit is standard normal; otherwise it is uniform on [-1, 1].
    """

    offset: Tensor
    scale: Tensor
    is_normal: bool

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the initial weights ``[count, P]`` of ``count`` networks."""
        unit = torch.empty(count, len(self.offset))
        if self.is_normal:
            unit.normal_(generator=generator)
        else:
            unit.uniform_(-1, 1, generator=generator)
        return self.offset + self.scale * unit


def initial_distribution(model: nn.Module, init: str, mean: float = 0.0, std: float = 0.05) -> InitialDistribution:
    """Return a distribution of the weights of a model, in the order of ``named_parameters``.

    Args:
        model: The model; its normalisation layers start at scale 1 and shift 0, except with ``normal``.
        init: One of ``INITS``; ``xavier`` and ``kaiming`` set biases to 0.
        mean: Mean of all weights with ``normal``.
        std: Standard deviation of all weights with ``normal``, >= 0.

    Raises:
        ConfigError: ``init`` is ``default`` and the model has a layer whose own initialisation is not known here.

    References:
        Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks. 2010, eq. 16.
        He, Zhang, Ren, Sun: Delving deep into rectifiers. ICCV 2015, eq. 10.
    """
    if init == "normal":
        size = sum(parameter.numel() for parameter in model.parameters())
        return InitialDistribution(torch.full((size,), mean), torch.full((size,), std), is_normal=True)
    pairs = [_offset_and_bound(init, *named) for named in _owned_parameters(model)]
    offset, scale = (
        torch.cat([torch.full((n,), value) for n, value in values])
        for values in zip(*[((n, offset), (n, bound)) for n, offset, bound in pairs], strict=True)
    )
    return InitialDistribution(offset, scale, is_normal=False)


def _owned_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield every parameter with the layer that owns it, in the order of ``named_parameters``."""
    for name, parameter in model.named_parameters():
        owner, _, own_name = name.rpartition(".")
        yield model.get_submodule(owner), own_name, parameter


def _offset_and_bound(init: str, owner: nn.Module, name: str, parameter: nn.Parameter) -> tuple[int, float, float]:
    """Return the number of weights of a parameter, their offset and half the width of their distribution."""
    n, shape = parameter.numel(), parameter.shape
    if isinstance(owner, _NORMS):
        return n, float(name == "weight"), 0.0
    if init == "default":
        if not isinstance(owner, _FAN_IN_UNIFORM):
            raise ConfigError(
                f"init='default' knows linear and convolutional layers, not the parameter {name!r} of a "
                f"{type(owner).__name__}; choose xavier, kaiming or normal"
            )
        # A bias has the bound of its layer's weight, therefore the owner's shape and not that of the parameter.
        return n, 0.0, 1 / math.sqrt(_fans(owner.weight.shape)[0])
    if parameter.ndim < 2:  # a bias: it has no fan-in, and both papers start biases at 0
        return n, 0.0, 0.0
    # A uniform distribution on [-b, b] has variance b^2 / 3: the 6 is 3 times the 2 in the variance of both papers.
    fan_in, fan_out = _fans(shape)
    return n, 0.0, math.sqrt(6 / (fan_in + fan_out) if init == "xavier" else 6 / fan_in)


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a weight ``[out, in, ...]``."""
    kernel_size = math.prod(shape[2:])
    return shape[1] * kernel_size, shape[0] * kernel_size
