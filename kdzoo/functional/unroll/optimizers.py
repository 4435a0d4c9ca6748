"""Inner optimisers as pure functions of their state, each elementwise and differentiable.

A state is a tuple of tensors of one shape [K, P], the weights first. ``update`` is applied once per inner step, whose
number counts from 0; everything in it may require grad.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import number, positive, probability
from kdzoo.errors import ConfigError

State = tuple[Tensor, ...]
"""The weights [K, P], then what the optimiser remembers, of the same shape."""


@runtime_checkable
class Optimizer(Protocol):
    """What every inner optimiser is; an own one needs these two methods, elementwise over the weights."""

    def start(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the state before the first step."""
        ...

    def update(self, state: State, gradient: Float[Tensor, "K P"], step_size: Float[Tensor, ""], step: int) -> State:
        """Return the state after a step, without changing the one before."""
        ...


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent, :math:`w \leftarrow w - \eta g`.

    Example:
        >>> SGD().update((torch.ones(1, 1),), torch.ones(1, 1), torch.tensor(0.25), 0)
        (tensor([[0.7500]]),)
    """

    def start(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights; nothing else is remembered."""
        return (weights,)

    def update(
        self,
        state: State,
        gradient: Float[Tensor, "K P"],
        step_size: Float[Tensor, ""],
        step: int,  # noqa: ARG002 -- every step is the same
    ) -> State:
        """Return the weights after a step."""
        return (state[0] - step_size * gradient,)


@dataclass(frozen=True)
class Momentum:
    r"""Heavy ball as in ``torch.optim.SGD``: :math:`b \leftarrow \mu b + g`, :math:`w \leftarrow w - \eta b`.

    Args:
        momentum: The factor mu, in [0, 1).
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        probability("momentum", self.momentum)

    def start(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights and no velocity."""
        return weights, torch.zeros_like(weights)

    def update(
        self,
        state: State,
        gradient: Float[Tensor, "K P"],
        step_size: Float[Tensor, ""],
        step: int,  # noqa: ARG002 -- every step is the same
    ) -> State:
        """Return weights and velocity after a step."""
        weights, velocity = state
        velocity = self.momentum * velocity + gradient
        return weights - step_size * velocity, velocity


@dataclass(frozen=True)
class Adam:
    r"""Adam (Kingma and Ba 2015, algorithm 1) with a second epsilon under the root.

    With m and v the running means of g and g^2, corrected for their start at 0,
    :math:`w \leftarrow w - \eta m / (\sqrt{v + \epsilon_r} + \epsilon)`. The root's derivative is infinite at 0,
    where the weights of a dead unit sit: their gradient is exactly 0, and infinity times 0 is NaN. A positive
    :math:`\epsilon_r` keeps every derivative finite, and the default changes a step by less than eps itself does.

    Args:
        betas: Decay of the two running means, each in [0, 1).
        eps: Added to the root, > 0.
        eps_root: Added under the root, > 0.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 1e-16

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        for i, beta in enumerate(self.betas):
            probability(f"betas[{i}]", beta)
        positive("eps", self.eps)
        number("eps_root", positive("eps_root", self.eps_root), least=1e-30)

    def start(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights and both running means at 0."""
        return weights, torch.zeros_like(weights), torch.zeros_like(weights)

    def update(self, state: State, gradient: Float[Tensor, "K P"], step_size: Float[Tensor, ""], step: int) -> State:
        """Return weights and running means after a step."""
        weights, mean, square = state
        first, second = self.betas
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient * gradient
        root = (square / (1 - second ** (step + 1)) + self.eps_root).sqrt() + self.eps
        return weights - step_size * (mean / (1 - first ** (step + 1))) / root, mean, square
