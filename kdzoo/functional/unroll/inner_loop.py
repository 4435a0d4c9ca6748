"""Inner steps: the gradient of the inner loss and what the optimiser makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.optimizers import Optimizer, State

InnerLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Weights [K, P], images [M, ...] and labels [M, C] to the sum over the K of each one's mean loss, a scalar."""


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

    def gradient_with_graph(self, weights: Tensor, images: Tensor, labels: Tensor) -> Float[Tensor, "K P"]:
        """Return the gradient with respect to the weights, which require grad, to be differentiated again."""
        with torch.enable_grad():
            value = self.value(weights, images, labels)
            return torch.autograd.grad(value, weights, create_graph=True)[0]

    def step(self, state: State, images: Tensor, labels: Tensor, size: Float[Tensor, ""], number: int) -> State:
        """Return the state after a step, without a graph; steps are counted from 0."""
        gradient = self.gradient(state[0], images, labels)
        with torch.no_grad():
            return self.optimizer.update(state, gradient, size, number)

    def steps(self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int) -> State:
        """Return the state after a step of each size, without a graph."""
        for number, size in enumerate(sizes.detach(), first):
            state = self.step(state, images, labels, size, number)
        return state

    def graph(self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int) -> State:
        """Return the state after a step of each size, with the graph of all; the weights must require grad."""
        for number, size in enumerate(sizes, first):
            gradient = self.gradient_with_graph(state[0], images, labels)
            if number == first:
                check_twice(gradient)
            state = self.optimizer.update(state, gradient, size, number)
        return state


def check_twice(gradient: Tensor) -> None:
    """Refuse a gradient that cannot be differentiated: its graph is missing, or ends in nodes that only raise.

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
    raise ConfigError("loss must be twice differentiable, but the gradient of an operation in it has no derivative")
