"""An exponential moving average of a network's weights that is a part of a model and is exported with it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from kdzoo.core.validation import probability


class WeightAverage(nn.Module):
    """The average of a network's weights over the training, as one vector, and the network with these weights.

    After the optimizer's step t the decay is ``min(decay, (1 + t) / (10 + t))``, so that the average of a short
    training does not depend on the initial weights: it reaches 0.99 after about 900 steps and 0.999 after about 9,000.
    The vectors are buffers, not parameters of the model, and get no gradient.

    Args:
        network: The network. The running statistics of its norms are averaged as its weights are, which they belong to.
        decay: Largest weight of the old average, in [0, 1).

    Attributes:
        weights: The averaged weights, ``[parameters]``.
        statistics: The averaged values of all floating-point buffers, in one vector.
        steps: Number of steps that were averaged, int64 ``[]``.

    Raises:
        ConfigError: ``decay`` is out of its range.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> average = WeightAverage(network, decay=0.9)
        >>> torch.equal(average(torch.ones(1, 1)), network(torch.ones(1, 1)))
        True

    References:
        Polyak, Juditsky: Acceleration of stochastic approximation by averaging. SIAM 1992.
    """

    weights: Tensor
    statistics: Tensor
    steps: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = probability("decay", decay)
        # In a tuple, so that the network is not registered a second time as a submodule of this one.
        self._network = (network,)
        self.register_buffer("weights", parameters_to_vector(network.parameters()).detach().clone())
        self.register_buffer("statistics", _flat(_statistics(network)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the network returns with the averaged weights."""
        (network,) = self._network
        named = _statistics(network)
        parts = self.statistics.split([value.numel() for value in named.values()])
        averaged = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
        return call_with_weights(network, self.weights, *inputs, buffers=averaged)

    def after_step(self) -> None:
        """Move the average towards the network's present weights."""
        (network,) = self._network
        # On the device, since reading the number of steps would make the host wait.
        self.steps += 1
        rising = (1.0 + self.steps) / (10.0 + self.steps)
        with torch.no_grad():
            share = 1.0 - rising.clamp(max=self.decay)
            current = parameters_to_vector(network.parameters()).to(self.weights)
            self.weights.lerp_(current, share.to(self.weights))
            self.statistics.lerp_(_flat(_statistics(network)).to(self.statistics), share.to(self.statistics))

    def restart(self) -> None:
        """Begin again with the network's present weights."""
        (network,) = self._network
        self.weights.copy_(parameters_to_vector(network.parameters()).detach())
        self.statistics.copy_(_flat(_statistics(network)))
        self.steps.zero_()


def _statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point buffers of a network by name, such as the running statistics of its norms."""
    return {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}


def _flat(values: Mapping[str, Tensor]) -> Tensor:
    """Return the elements of all values as one vector; an empty one for no values."""
    return torch.cat([value.detach().flatten() for value in values.values()]) if values else torch.empty(0)


def call_with_weights(
    network: nn.Module, weights: Tensor, *inputs: Tensor, buffers: Mapping[str, Tensor] | None = None
) -> Any:
    """Return what a network returns with other weights, given as one vector in the order of its parameters.

    Args:
        network: The network.
        weights: The weights, ``[parameters]``.
        *inputs: Arguments of the network.
        buffers: Values in the place of the network's own buffers, by name.
    """
    state = dict(buffers or {})
    if network.training:
        # A norm in training mode would count the inputs in its running statistics, which must not change.
        state = {name: buffer.clone() for name, buffer in (*network.named_buffers(), *state.items())}
    named = dict(network.named_parameters())
    parts = weights.split([parameter.numel() for parameter in named.values()])
    views = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
    return functional_call(network, views | state, inputs)


def set_weights(network: nn.Module, weights: Tensor) -> None:
    """Copy weights, given as one vector in the order of the parameters, into a network."""
    with torch.no_grad():
        parts = weights.split([parameter.numel() for parameter in network.parameters()])
        for parameter, part in zip(network.parameters(), parts, strict=True):
            parameter.copy_(part.view_as(parameter))
