r"""The ways back through some inner steps: from derivatives of the outer loss after them to those before them.

With v the adjoint of the weights after a step of gradient descent, g the step's gradient and H its Hessian,

.. math:: \partial L/\partial\eta = -\langle v, g\rangle, \quad
   \partial L/\partial \tilde x \mathrel{+}= -\eta (\partial g/\partial \tilde x)^\top v, \quad
   v \leftarrow (I - \eta H) v.

For any optimiser that works elementwise, the adjoint a of the gradient stands in place of -eta v; it comes from the
local derivative of the optimiser's update. What is left are the derivatives of <g, a> with respect to weights, images
and labels, with a held constant. <g, a> is also the derivative of the loss along a, by which forward mode gets it
without g.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.inner_loop import Descent, check_twice
from kdzoo.functional.unroll.optimizers import State


@dataclass(frozen=True)
class Steps:
    """Consecutive inner steps.

    Args:
        descent: How they are taken.
        state: Where they start.
        images: Images (M, ...), which require grad if their derivative is wanted.
        labels: Labels (M, C), which require grad if their derivative is wanted.
        sizes: Their step sizes.
        first: Number of the first of them, counted from 0.
    """

    descent: Descent
    state: State
    images: Tensor
    labels: Tensor
    sizes: Float[Tensor, " n"]
    first: int


@dataclass(frozen=True)
class Adjoints:
    """Derivatives of the outer loss with respect to what some inner steps start from; None where not wanted."""

    state: State
    images: Tensor | None
    labels: Tensor | None
    sizes: Float[Tensor, " n"]


Pullback = Callable[[Steps, State], Adjoints]
"""Steps and the adjoint of the state after them to the adjoints before them."""


def through_graph(steps: Steps, adjoint: State) -> Adjoints:
    """Take the steps again, keeping their graph, and go back through it at once."""
    state, sizes = tuple(leaf(part) for part in steps.state), leaf(steps.sizes)
    with torch.enable_grad():
        end = steps.descent.graph(state, steps.images, steps.labels, sizes, steps.first)
    *before, d_sizes, images, labels = products(end, [*state, sizes, steps.images, steps.labels], adjoint)
    return Adjoints(tuple(before), images, labels, d_sizes)


def by_recursion(steps: Steps, adjoint: State) -> Adjoints:
    """Take the steps again without a graph, then go back one by one, the products taken in reverse mode."""
    last, passed = len(steps.sizes) - 1, room(steps, len(steps.state))
    state = steps.state
    for i, size in enumerate(steps.sizes):
        torch.stack(state, out=passed[i])
        if i < last:
            state = steps.descent.step(state, steps.images, steps.labels, size, steps.first + i)
    back = WayBack(steps, adjoint)
    for i in reversed(range(len(steps.sizes))):
        state, weights = passed[i].unbind(), leaf(passed[i, 0])
        gradient = steps.descent.gradient_with_graph(weights, steps.images, steps.labels)
        if i == last:
            check_twice(gradient)
        along = back.update(i, state, gradient)
        back.gradient(products([gradient], [weights, steps.images, steps.labels], [along]))
        del gradient  # and its graph, before the next is made
    return back.adjoints()


def by_tangent(steps: Steps, adjoint: State) -> Adjoints:
    """Take the steps again without a graph, then go back one by one, the products taken in forward mode."""
    passed = room(steps, len(steps.state) + 1)
    state = steps.state
    for i, size in enumerate(steps.sizes):
        gradient = steps.descent.gradient(state[0], steps.images, steps.labels)
        torch.stack([*state, gradient], out=passed[i])
        state = steps.descent.optimizer.update(state, gradient, size, steps.first + i)
    back = WayBack(steps, adjoint)
    for i in reversed(range(len(steps.sizes))):
        state, gradient = passed[i, :-1].unbind(), passed[i, -1]
        along = back.update(i, state, gradient)
        back.gradient(tangents(steps.descent, state[0], steps.images, steps.labels, along))
    return back.adjoints()


def room(steps: Steps, rows: int) -> Float[Tensor, "n rows K P"]:
    """Return room for what is kept of each step; one block, since many small ones leave gaps between large ones."""
    return steps.state[0].new_empty(len(steps.sizes), rows, *steps.state[0].shape)


class WayBack:
    """The adjoints on the way back through some steps, one half of a step after the other.

    Args:
        steps: The steps.
        adjoint: The adjoint of the state after them.
    """

    def __init__(self, steps: Steps, adjoint: State) -> None:
        self.steps, self.state = steps, adjoint
        self.data = [torch.zeros_like(one) if one.requires_grad else None for one in (steps.images, steps.labels)]
        self.sizes = torch.empty_like(steps.sizes)

    def update(self, i: int, state: State, gradient: Float[Tensor, "K P"]) -> Float[Tensor, "K P"]:
        """Go back through the update of step i; return the adjoint of its gradient."""
        inputs = [leaf(one) for one in (*state, gradient, self.steps.sizes[i])]
        with torch.enable_grad():
            after = self.steps.descent.optimizer.update(
                tuple(inputs[:-2]), inputs[-2], inputs[-1], self.steps.first + i
            )
        *before, along, self.sizes[i] = torch.autograd.grad(after, inputs, self.state, materialize_grads=True)
        self.state = tuple(before)
        return along

    def gradient(self, found: Sequence[Any]) -> None:
        """Add the products of the adjoint of the gradient with its derivatives: weights, images, labels."""
        weights, *rest = self.state
        self.state = (weights + found[0], *rest)
        for total, share in zip(self.data, found[1:], strict=True):
            if total is not None:
                total += share

    def adjoints(self) -> Adjoints:
        """Return the adjoints before the first step."""
        return Adjoints(self.state, self.data[0], self.data[1], self.sizes)


def leaf(value: Tensor, wanted: bool = True) -> Tensor:
    """Return the value cut from its graph, requiring grad if its derivative is wanted."""
    return value.detach().requires_grad_(wanted)


def products(outputs: Sequence[Tensor], inputs: Sequence[Tensor], adjoint: Sequence[Tensor]) -> list[Any]:
    """Return the adjoints of the inputs, None for one that does not require grad; frees the graph."""
    wanted = [one for one in inputs if one.requires_grad]
    with derivatives("twice differentiable"):
        found = iter(torch.autograd.grad(outputs, wanted, adjoint, materialize_grads=True))
    return [next(found) if one.requires_grad else None for one in inputs]


def tangents(descent: Descent, weights: Tensor, images: Tensor, labels: Tensor, along: Tensor) -> list[Any]:
    """Return the derivatives of <g, a>, as the derivative of the loss along a: of weights, images and labels."""
    weights = leaf(weights)
    with derivatives("differentiable in forward mode for engine jvp"), torch.enable_grad():
        slope = torch.func.jvp(lambda moved: descent.value(moved, images, labels), (weights,), (along,))[1]
        check_twice(slope)
    return products([slope], [weights, images, labels], [torch.ones_like(slope)])


MISSING = ("differentiate twice", "is not implemented", "forward AD", "forward mode AD", "jvp", "setup_context")


@contextmanager
def derivatives(what: str) -> Iterator[None]:
    """Say in one line what the loss must be, when an operation in it lacks a derivative."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in MISSING):
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(f"loss must be {what}: {reason}") from error
        raise
