"""Inner steps: the gradient of the inner loss and what the optimiser makes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.optimizers import Optimizer, State

InnerLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Weights [K, P], images [M, ...] and labels [M, C] to the sum over the K of each one's mean loss, a scalar.

The same arguments must give the same value every time, since the engines evaluate a step more than once.
"""


@dataclass(frozen=True)
class Descent:
    """Steps of an inner optimiser on an inner loss.

    Args:
        loss: The inner loss.
        optimizer: The inner optimiser.
    """

    loss: InnerLoss
    optimizer: Optimizer

    def value(self, weights: Float[Tensor, "K P"], images: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Return the inner loss, which must be a scalar."""
        value = self.loss(weights, images, labels)
        if value.ndim:
            raise ConfigError(f"loss must return a scalar, got shape {tuple(value.shape)}")
        return value

    def gradient(self, weights: Float[Tensor, "K P"], images: Tensor, labels: Tensor) -> Float[Tensor, "K P"]:
        """Return the gradient with respect to the weights, as a constant."""
        weights = weights.detach().requires_grad_()
        with torch.enable_grad():
            value = self.value(weights, images.detach(), labels.detach())
        return torch.autograd.grad(value, weights)[0]

    def gradient_with_graph(
        self, weights: Float[Tensor, "K P"], images: Tensor, labels: Tensor
    ) -> Float[Tensor, "K P"]:
        """Return the gradient with respect to the weights, which require grad, to be differentiated again."""
        with torch.enable_grad():
            value = self.value(weights, images, labels)
            return torch.autograd.grad(value, weights, create_graph=True)[0]

    def walk(
        self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int
    ) -> Iterator[tuple[State, Float[Tensor, "K P"]]]:
        """Take one step for each size without a graph; yield the state after each and the gradient it followed.

        Args:
            state: Where to start.
            images: Images (M, ...).
            labels: Labels (M, C).
            sizes: The step sizes.
            first: Number of the first step, counted from 0.
        """
        for i, size in enumerate(sizes.detach()):
            gradient = self.gradient(state[0], images, labels)
            with torch.no_grad():
                state = self.optimizer.update(state, gradient, size, first + i)
            yield state, gradient

    def graph(self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int) -> State:
        """Take one step for each size and keep the graph of them all; the weights must require grad."""
        for i, size in enumerate(sizes):
            gradient = self.gradient_with_graph(state[0], images, labels)
            if i == 0:
                check_twice(gradient)
            state = self.optimizer.update(state, gradient, size, first + i)
        return state


def check_twice(gradient: Tensor) -> None:
    """Refuse a gradient that cannot be differentiated: one whose graph ends in nodes that only raise.

    Raises:
        ConfigError: If the loss that it comes from is not twice differentiable.
    """
    seen, queue = set(), [gradient.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith(("NotImplemented", "Error")):
            break
        queue += [following for following, _ in node.next_functions]
    else:
        if gradient.requires_grad:
            return
    raise ConfigError(
        "loss must be twice differentiable, but the gradient of an operation in it has no derivative of its own"
    )
