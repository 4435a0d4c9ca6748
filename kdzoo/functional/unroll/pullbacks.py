r"""The ways back through some inner steps: from derivatives of the outer loss after them to those before them.

With v the adjoint of the weights after a step of gradient descent, g the step's gradient and H its Hessian,

.. math:: \partial L/\partial\eta = -\langle v, g\rangle, \quad
   \partial L/\partial \tilde x \mathrel{+}= -\eta (\partial g/\partial \tilde x)^\top v, \quad
   v \leftarrow (I - \eta H) v.

For any optimiser that works elementwise, the adjoint a of the gradient stands in place of -eta v; it comes from the
local derivative of the optimiser's update. What is left is linear in a: the products of a with the derivatives of g
with respect to weights, images and labels. Second derivatives are symmetric, so these are also the derivative of
the joint gradient of the loss with respect to (weights, images, labels) along (a, 0, 0): one forward-mode pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.descent import Descent, check_twice
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
    found = products(end, [*state, sizes, steps.images, steps.labels], adjoint)
    return Adjoints(tuple(found[:-3]), found[-2], found[-1], found[-3])


def by_recursion(steps: Steps, adjoint: State) -> Adjoints:
    """Go back through one step by the recursion above, its products taken in reverse mode."""
    weights = leaf(steps.state[0])
    gradient = steps.descent.gradient_with_graph(weights, steps.images, steps.labels)
    check_twice(gradient)
    *before, along, size = update_products(steps, steps.state, gradient, 0, adjoint)
    curved, images, labels = products([gradient], [weights, steps.images, steps.labels], [along])
    before[0] = before[0] + curved
    return Adjoints(tuple(before), images, labels, size[None])


def by_tangent(steps: Steps, adjoint: State) -> Adjoints:
    """Take the steps again without a graph, then go back one by one, the products taken in forward mode."""
    descent, images, labels = steps.descent, steps.images, steps.labels
    walked = list(descent.walk(steps.state, images, labels, steps.sizes, steps.first))
    starts = [steps.state, *(state for state, _ in walked)]
    sizes = torch.empty_like(steps.sizes)
    d_images, d_labels = (torch.zeros_like(one) if one.requires_grad else None for one in (images, labels))
    for i in reversed(range(len(walked))):
        _, gradient = walked.pop()
        *before, along, sizes[i] = update_products(steps, starts[i], gradient, i, adjoint)
        del gradient
        curved, along_images, along_labels = tangents(descent, starts[i][0], images, labels, along)
        if curved is not None:
            before[0] += curved
        adjoint = tuple(before)
        for total, share in ((d_images, along_images), (d_labels, along_labels)):
            if total is not None and share is not None:
                total += share
    return Adjoints(adjoint, d_images, d_labels, sizes)


def leaf(value: Tensor, wanted: bool = True) -> Tensor:
    """Return the value cut from its graph, requiring grad if its derivative is wanted."""
    return value.detach().requires_grad_(wanted)


def products(outputs: Sequence[Tensor], inputs: Sequence[Tensor], adjoint: Sequence[Tensor]) -> list[Any]:
    """Return the adjoints of the inputs, None for one that does not require grad; frees the graph."""
    wanted = [one for one in inputs if one.requires_grad]
    with twice_differentiable():
        found = iter(torch.autograd.grad(outputs, wanted, adjoint, materialize_grads=True))
    return [next(found) if one.requires_grad else None for one in inputs]


def update_products(steps: Steps, state: State, gradient: Tensor, i: int, adjoint: State) -> list[Tensor]:
    """Return the adjoints of the state before step i, of its gradient and of its size, by the update alone."""
    inputs = [leaf(one) for one in (*state, gradient, steps.sizes[i])]
    with torch.enable_grad():
        after = steps.descent.optimizer.update(tuple(inputs[:-2]), inputs[-2], inputs[-1], steps.first + i)
    return list(torch.autograd.grad(after, inputs, adjoint, materialize_grads=True))


def tangents(descent: Descent, weights: Tensor, images: Tensor, labels: Tensor, along: Tensor) -> list[Any]:
    """Return the derivative of the joint gradient of the loss along a direction of the weights, None for a zero.

    The gradient is taken of dual numbers and keeps no graph, so that this needs about twice the memory of a gradient.
    """
    with twice_differentiable(), forward_ad.dual_level(), torch.enable_grad():
        dual = forward_ad.make_dual(leaf(weights), along)
        value = descent.value(dual, images, labels)
        wanted = [dual, *(one for one in (images, labels) if one.requires_grad)]
        found = torch.autograd.grad(value, wanted, materialize_grads=True)
        moved = iter([forward_ad.unpack_dual(one).tangent for one in found])
    return [next(moved) if one.requires_grad else None for one in (dual, images, labels)]


MISSING = ("differentiate twice", "is not implemented", "forward AD", "forward mode AD", "jvp")


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Say in one line that an operation lacks a derivative."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in MISSING):
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"loss must be twice differentiable, for engine jvp by forward-mode differentiation too: {reason}"
            ) from error
        raise
