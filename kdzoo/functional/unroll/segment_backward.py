r"""Backward passes through a segment of inner steps: from the adjoint of the state after it to that before it.

The adjoint of a tensor is the derivative of the outer loss L with respect to it. With v the adjoint of the weights
after a step of gradient descent, g the gradient of the step, H its Hessian and x the images,

.. math:: \partial L/\partial\eta = -\langle v, g\rangle, \quad
   \partial L/\partial x \mathrel{+}= -\eta (\partial g/\partial x)^\top v, \quad
   v \leftarrow (I - \eta H) v.

For any elementwise optimizer, the adjoint a of the gradient takes the place of :math:`-\eta v`; it follows from the
local derivative of the update. What remains are the derivatives of :math:`\langle g, a \rangle` with respect to
weights, images and labels, with a held constant. They can be computed by reverse mode through the graph of g. Since
:math:`\langle g, a \rangle` is the directional derivative of the inner loss along a, forward mode gets it without g.

References:
    Maclaurin, Duvenaud, Adams: Gradient-based hyperparameter optimization through reversible learning. ICML 2015.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import ConfigError, first_line
from kdzoo.functional.unroll.inner_loop import InnerLoop, check_twice_differentiable
from kdzoo.functional.unroll.optimizers import State


@dataclass(frozen=True)
class Segment:
    """Consecutive inner steps.

    Args:
        loop: The inner loss and optimizer.
        state: State before the first step.
        images: Images ``[M, ...]``, which require grad if their derivative is wanted.
        labels: Labels ``[M, C]``, which require grad if their derivative is wanted.
        sizes: Step sizes, ``[steps]``.
        first: Number of the first step, counted from 0.
    """

    loop: InnerLoop
    state: State
    images: Tensor
    labels: Tensor
    sizes: Float[Tensor, " n"]
    first: int


@dataclass(frozen=True)
class Adjoints:
    """Derivatives of the outer loss with respect to the inputs of a segment; None where they are not wanted."""

    state: State
    images: Tensor | None
    labels: Tensor | None
    sizes: Float[Tensor, " n"]


SegmentBackward = Callable[[Segment, State], Adjoints]
"""Maps a segment and the adjoint of the state after it to the adjoints of its inputs."""


def backward_through_graph(segment: Segment, adjoint: State) -> Adjoints:
    """Repeat the steps with their graph, and go back through the whole graph at once.

    Args:
        segment: The steps.
        adjoint: Adjoint of the state after them.
    """
    state, sizes = tuple(leaf(tensor) for tensor in segment.state), leaf(segment.sizes)
    with torch.enable_grad():
        end = segment.loop.steps_with_graph(state, segment.images, segment.labels, sizes, segment.first)
    *state_adjoint, d_sizes, images, labels = vjp(end, [*state, sizes, segment.images, segment.labels], adjoint)
    return Adjoints(tuple(state_adjoint), images, labels, d_sizes)


def backward_by_vjp(segment: Segment, adjoint: State) -> Adjoints:
    """Repeat the steps without a graph, then go back step by step in reverse mode: one step's graph at a time.

    Args:
        segment: The steps.
        adjoint: Adjoint of the state after them.
    """
    last, states = len(segment.sizes) - 1, step_buffer(segment, len(segment.state))
    state = segment.state
    for i, size in enumerate(segment.sizes):
        torch.stack(state, out=states[i])
        if i < last:  # the state after the last step is not needed
            state = segment.loop.step(state, segment.images, segment.labels, size, segment.first + i)
    adjoints = RunningAdjoints(segment, adjoint)
    for i in reversed(range(len(segment.sizes))):
        state, weights = states[i].unbind(), leaf(states[i, 0])
        gradient = segment.loop.gradient_with_graph(weights, segment.images, segment.labels)
        if i == last:
            check_twice_differentiable(gradient)
        direction = adjoints.through_update(i, state, gradient)
        adjoints.through_gradient(vjp([gradient], [weights, segment.images, segment.labels], [direction]))
        del gradient  # frees its graph before that of the next step is built
    return adjoints.result()


def backward_by_jvp(segment: Segment, adjoint: State) -> Adjoints:
    """Repeat the steps without a graph, then go back step by step with directional derivatives in forward mode.

    Args:
        segment: The steps.
        adjoint: Adjoint of the state after them.
    """
    states = step_buffer(segment, len(segment.state) + 1)  # forward mode does not give the gradient: it is stored too
    state = segment.state
    for i, size in enumerate(segment.sizes):
        gradient = segment.loop.gradient(state[0], segment.images, segment.labels)
        torch.stack([*state, gradient], out=states[i])
        state = segment.loop.optimizer.update(state, gradient, size, segment.first + i)
    adjoints = RunningAdjoints(segment, adjoint)
    for i in reversed(range(len(segment.sizes))):
        state, gradient = states[i, :-1].unbind(), states[i, -1]
        direction = adjoints.through_update(i, state, gradient)
        adjoints.through_gradient(
            directional_derivatives(segment.loop, state[0], segment.images, segment.labels, direction)
        )
    return adjoints.result()


def step_buffer(segment: Segment, rows: int) -> Float[Tensor, "n rows K P"]:
    """Return uninitialized memory for ``rows`` tensors per step, as one block."""
    # Small blocks between the large ones of a step's graph fragment the heap: with one block per step, the peak memory
    # of 100 steps was measured at 153 MB, for weights of 30 MB in all.
    return segment.state[0].new_empty(len(segment.sizes), rows, *segment.state[0].shape)


class RunningAdjoints:
    """The adjoints while going back through a segment, in two halves per step: update, then gradient.

    Args:
        segment: The steps.
        adjoint: Adjoint of the state after them.
    """

    def __init__(self, segment: Segment, adjoint: State) -> None:
        self.segment, self.state = segment, adjoint
        data = (segment.images, segment.labels)
        self.data = [torch.zeros_like(tensor) if tensor.requires_grad else None for tensor in data]
        self.sizes = torch.empty_like(segment.sizes)

    def through_update(self, i: int, state: State, gradient: Float[Tensor, "K P"]) -> Float[Tensor, "K P"]:
        """Go back through the optimizer's update in step i, and return the adjoint of its gradient."""
        # The update is elementwise: its graph is a few tensors of the size of the weights.
        inputs = [leaf(tensor) for tensor in (*state, gradient, self.segment.sizes[i])]
        *state_inputs, gradient_input, size_input = inputs
        with torch.enable_grad():
            after = self.segment.loop.optimizer.update(
                tuple(state_inputs), gradient_input, size_input, self.segment.first + i
            )
        *before, direction, self.sizes[i] = torch.autograd.grad(after, inputs, self.state, materialize_grads=True)
        self.state = tuple(before)
        return direction

    def through_gradient(self, derivatives: Sequence[Any]) -> None:
        """Add the derivatives of <gradient, its adjoint> with respect to weights, images and labels."""
        weights, *buffers = self.state
        d_weights, *d_data = derivatives
        self.state = (weights + d_weights, *buffers)
        for total, derivative in zip(self.data, d_data, strict=True):
            if total is not None:
                total += derivative

    def result(self) -> Adjoints:
        """Return the adjoints of the inputs of the segment."""
        return Adjoints(self.state, self.data[0], self.data[1], self.sizes)


def leaf(value: Tensor, wanted: bool = True) -> Tensor:
    """Return the value cut from its graph; it requires grad if its derivative is wanted."""
    return value.detach().requires_grad_(wanted)


def vjp(outputs: Sequence[Tensor], inputs: Sequence[Tensor], adjoint: Sequence[Tensor]) -> list[Any]:
    """Return the adjoints of the inputs, or None for an input that does not require grad; frees the graph."""
    differentiable = [tensor for tensor in inputs if tensor.requires_grad]
    with missing_derivatives("twice differentiable"):
        derivatives = iter(torch.autograd.grad(outputs, differentiable, adjoint, materialize_grads=True))
    return [next(derivatives) if tensor.requires_grad else None for tensor in inputs]


def directional_derivatives(
    loop: InnerLoop, weights: Tensor, images: Tensor, labels: Tensor, direction: Tensor
) -> list[Any]:
    """Return the derivatives of <gradient, direction> with respect to weights, images and labels.

    Reverse mode over forward mode: the inner product is one directional derivative of the inner loss, a scalar.
    """
    weights = leaf(weights)
    with missing_derivatives("differentiable in forward mode for engine jvp"), torch.enable_grad():
        slope = torch.func.jvp(lambda moved: loop.value(moved, images, labels), (weights,), (direction,))[1]
        check_twice_differentiable(slope)
    return vjp([slope], [weights, images, labels], [torch.ones_like(slope)])


# Parts of PyTorch's messages about an operation without the derivative that is needed. The errors have no class of
# their own; another RuntimeError, such as one of shapes, must not be reported as a missing derivative.
MISSING = ("differentiate twice", "is not implemented", "forward AD", "forward mode AD", "jvp", "setup_context")


@contextmanager
def missing_derivatives(required: str) -> Iterator[None]:
    """Turn PyTorch's error about a missing derivative into one line that says what the loss must be.

    Args:
        required: What the loss must be.

    Raises:
        ConfigError: If an operation inside of the context lacks a derivative.
    """
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in MISSING):
            reason = first_line(error).rstrip(".")
            raise ConfigError(f"loss must be {required}: {reason}") from error
        raise
