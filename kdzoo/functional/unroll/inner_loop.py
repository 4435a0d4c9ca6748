"""Steps of an inner training: the gradient of the inner loss, and the update that an optimizer makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.optimizers import Optimizer, State

InnerLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps weights ``[K, P]``, images ``[M, ...]`` and labels ``[M, C]`` to a scalar: the sum over the K networks of the
mean loss of each one over the M images.

A sum over networks, since the gradient of one network must not depend on how many are trained together.
"""


@dataclass(frozen=True)
class InnerLoop:
    """Steps of an inner optimizer on an inner loss.

    Args:
        loss: The inner loss.
        optimizer: The inner optimizer.
    """

    loss: InnerLoss
    optimizer: Optimizer

    def value(self, weights: Float[Tensor, "K P"], images: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Return the inner loss.

        Raises:
            ConfigError: If it is not a scalar.
        """
        value = self.loss(weights, images, labels)
        if value.ndim:
            raise ConfigError(f"loss must return a scalar, got shape {tuple(value.shape)}")
        return value

    def gradient(self, weights: Float[Tensor, "K P"], images: Tensor, labels: Tensor) -> Float[Tensor, "K P"]:
        """Return the gradient with respect to the weights, detached from everything."""
        weights = weights.detach().requires_grad_()
        # The caller may run under ``no_grad``, but the inner gradient needs a graph.
        with torch.enable_grad():
            value = self.value(weights, images.detach(), labels.detach())
        return torch.autograd.grad(value, weights)[0]

    def gradient_with_graph(self, weights: Tensor, images: Tensor, labels: Tensor) -> Float[Tensor, "K P"]:
        """Return the gradient with respect to the weights, which must require grad, with its graph."""
        with torch.enable_grad():
            value = self.value(weights, images, labels)
            return torch.autograd.grad(value, weights, create_graph=True)[0]

    def step(self, state: State, images: Tensor, labels: Tensor, size: Float[Tensor, ""], number: int) -> State:
        """Return the state after one step, without a graph; steps are numbered from 0."""
        gradient = self.gradient(state[0], images, labels)
        with torch.no_grad():
            return self.optimizer.update(state, gradient, size, number)

    def steps(self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int) -> State:
        """Return the state after one step of each size, without a graph; ``first`` is the number of the first step."""
        for number, size in enumerate(sizes.detach(), first):
            state = self.step(state, images, labels, size, number)
        return state

    def steps_with_graph(
        self, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int
    ) -> State:
        """Return the state after one step of each size, with the graph of all steps; the weights must require grad."""
        for number, size in enumerate(sizes, first):
            gradient = self.gradient_with_graph(state[0], images, labels)
            if number == first:  # the operations are the same in every step
                check_twice_differentiable(gradient)
            state = self.optimizer.update(state, gradient, size, number)
        return state


def check_twice_differentiable(gradient: Tensor) -> None:
    """Reject a gradient that cannot be differentiated: it has no graph, or its graph has nodes that only raise.

    Without this check PyTorch raises in the outer backward pass, in words that do not name the loss.

    Args:
        gradient: A gradient that was computed with ``create_graph=True``.

    Raises:
        ConfigError: If the loss that it comes from is not twice differentiable.
    """
    visited, queue = set(), [gradient.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        # Names of the nodes that PyTorch inserts where a derivative is missing: ``NotImplemented`` for its own
        # operations, ``...Error`` for functions that are marked as ``once_differentiable``.
        if node.name().endswith(("NotImplemented", "Error")):
            break
        queue += [next_node for next_node, _ in node.next_functions]
    else:
        if gradient.requires_grad:
            return
    raise ConfigError("loss must be twice differentiable, but the gradient of an operation in it has no derivative")
