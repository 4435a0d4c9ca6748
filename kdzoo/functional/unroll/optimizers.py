"""Inner optimizers as pure functions of their state, elementwise in the weights and differentiable.

A state is a tuple of tensors of one shape ``[K, P]``, the weights first. Since every operation is elementwise, the
adjoint of an update is found without the graph of the loss; see :mod:`kdzoo.functional.unroll.segment_backward`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import number, positive, probability
from kdzoo.errors import ConfigError

State = tuple[Tensor, ...]
"""The weights ``[K, P]``, then the buffers of the optimizer, of the same shape."""


@runtime_checkable
class Optimizer(Protocol):
    """Interface of an inner optimizer. Both methods must be elementwise in the weights and differentiable."""

    def init_state(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the state before the first step."""
        ...

    def update(self, state: State, gradient: Float[Tensor, "K P"], step_size: Float[Tensor, ""], step: int) -> State:
        """Return the state after a step, without changing the given one.

        Args:
            state: The state before the step; may require grad, as may the other tensors.
            gradient: Gradient of the inner loss at the weights of the state.
            step_size: Step size, a scalar.
            step: Number of the step, counted from 0.
        """
        ...


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent, :math:`w \leftarrow w - \eta g`.

    Example:
        >>> SGD().update((torch.ones(1, 1),), torch.ones(1, 1), torch.tensor(0.25), 0)
        (tensor([[0.7500]]),)
    """

    def init_state(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights alone: there are no buffers."""
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

    Raises:
        ConfigError: If the factor is outside its range.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        probability("momentum", self.momentum)

    def init_state(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights and a velocity of 0."""
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
    r"""Adam with a second epsilon under the root.

    With m and v the running means of :math:`g` and :math:`g^2`, corrected for their start at 0,
    :math:`w \leftarrow w - \eta m / (\sqrt{v + \epsilon_r} + \epsilon)`. The derivative of the root is infinite at 0,
    where the weights of a dead unit are: their gradient is exactly 0, and infinity times 0 is NaN. A positive
    :math:`\epsilon_r` keeps every derivative finite.

    Args:
        betas: Decay of the two running means, each in [0, 1).
        eps: Added to the root, > 0.
        eps_root: Added under the root, >= 1e-30.

    Raises:
        ConfigError: If an argument is outside its range.

    References:
        Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015, algorithm 1.
    """

    # The defaults of the paper and of ``torch.optim.Adam``.
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    # The square of ``eps``: at v = 0 the denominator is 2 eps instead of eps, elsewhere it changes less than by eps.
    eps_root: float = 1e-16

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        for i, beta in enumerate(self.betas):
            probability(f"betas[{i}]", beta)
        positive("eps", self.eps)
        # Far above the smallest float32 number, so that neither this nor the derivative of the root at 0, which is at
        # most 5e14, leaves the range of float32.
        number("eps_root", positive("eps_root", self.eps_root), least=1e-30)

    def init_state(self, weights: Float[Tensor, "K P"]) -> State:
        """Return the weights and both running means at 0."""
        return weights, torch.zeros_like(weights), torch.zeros_like(weights)

    def update(self, state: State, gradient: Float[Tensor, "K P"], step_size: Float[Tensor, ""], step: int) -> State:
        """Return weights and running means after a step."""
        weights, mean, square = state
        beta1, beta2 = self.betas
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient * gradient
        # Both running means start at 0 and are divided by the total weight of the gradients so far.
        root = (square / (1 - beta2 ** (step + 1)) + self.eps_root).sqrt() + self.eps
        return weights - step_size * (mean / (1 - beta1 ** (step + 1))) / root, mean, square
