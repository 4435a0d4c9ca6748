"""The engines of :func:`kdzoo.functional.unroll.unroll`: how many states they keep, and how they go back between them.

``full`` keeps the graph of all steps and is plain autograd. The others keep the state at regular checkpoints, take the
steps without a graph, and repeat a segment between two checkpoints in the backward pass, in one
``torch.autograd.Function``:

=========== ============================================ ==================================
engine      memory                                       backward pass through a segment
=========== ============================================ ==================================
full        N graphs                                     plain autograd
segments    sqrt(N) / 2 graphs + 2 sqrt(N) states        the graph of the segment
reverse     1 graph + 2 sqrt(N) states                   step by step, reverse mode
jvp         1 graph + 2 sqrt(N) states                   step by step, forward mode
=========== ============================================ ==================================
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.inner_loop import InnerLoop
from kdzoo.functional.unroll.optimizers import State
from kdzoo.functional.unroll.segment_backward import (
    Segment,
    SegmentBackward,
    backward_by_jvp,
    backward_by_vjp,
    backward_through_graph,
    leaf,
)


@dataclass(frozen=True)
class Engine:
    """A way to checkpoint the inner steps.

    Args:
        backward: Backward pass through the steps between two checkpoints.
        segment_length: Maps the number of all steps to the number of steps between two checkpoints.
        keeps_last_graph: Whether the last segment keeps its graph in the forward pass. The backward pass starts
            there, so that this saves repeating it and costs no memory at the peak.
    """

    backward: SegmentBackward
    segment_length: Callable[[int], int]
    keeps_last_graph: bool = False


def ceil_sqrt(steps: int) -> int:
    """Return the smallest integer whose square is at least the number of steps.

    With N / n checkpoints and n states or graphs within a segment, their sum is smallest at n = sqrt(N).
    """
    return math.isqrt(steps - 1) + 1


def half_ceil_sqrt(steps: int) -> int:
    """Return half of that, rounded up: the graph of a step is larger than a state, so that segments are shorter."""
    return (ceil_sqrt(steps) + 1) // 2


CHECKPOINTING = {
    "reverse": Engine(backward_by_vjp, ceil_sqrt),
    "segments": Engine(backward_through_graph, half_ceil_sqrt, keeps_last_graph=True),
    "jvp": Engine(backward_by_jvp, ceil_sqrt),
}
ENGINES = ("full", *CHECKPOINTING)


def differentiable_steps(
    engine: str, loop: InnerLoop, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int
) -> State:
    """Return the state after one step of each size, differentiable by the given engine.

    Args:
        engine: One of ``ENGINES``.
        loop: The inner loss and optimizer.
        state: State before the first step.
        images: Images ``[M, ...]``.
        labels: Labels ``[M, C]``.
        sizes: Step sizes, ``[steps]``.
        first: Number of the first step, counted from 0.
    """
    checkpointing = CHECKPOINTING.get(engine)
    n_checkpointed = 0
    raise_mmap_threshold()
    if checkpointing is not None:
        length = checkpointing.segment_length(len(sizes))
        n_checkpointed = len(sizes) - (length if checkpointing.keeps_last_graph else 0)
        if n_checkpointed:
            state = CheckpointedSteps.apply(
                loop, checkpointing.backward, length, first, images, labels, sizes[:n_checkpointed], *state
            )
    # The inner gradient of the steps with a graph needs weights that require grad, also if nobody wants theirs.
    if n_checkpointed < len(sizes) and not state[0].requires_grad:
        state = (leaf(state[0]), *state[1:])
    return loop.steps_with_graph(state, images, labels, sizes[n_checkpointed:], first + n_checkpointed)


class CheckpointedSteps(torch.autograd.Function):
    """Inner steps without a graph, which keep the state at the start of every segment for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        loop: InnerLoop,
        segment_backward: SegmentBackward,
        length: int,
        first: int,
        images: Tensor,
        labels: Tensor,
        sizes: Float[Tensor, " n"],
        *state: Tensor,
    ) -> State:
        """Return the state after the last step."""
        ctx.loop, ctx.segment_backward, ctx.length, ctx.first = loop, segment_backward, length, first
        n_segments = -(-len(sizes) // length)
        checkpoints = state[0].new_empty(n_segments, len(state), *state[0].shape)  # one block: see ``step_buffer``
        rng_before = rng_state(sizes)
        for i, size in enumerate(sizes):
            if i % length == 0:
                torch.stack(state, out=checkpoints[i // length])
            state = loop.step(state, images, labels, size, first + i)
            # A repeated step would draw other numbers, and the gradient would be that of another training.
            if i == 0 and not torch.equal(rng_before, rng_state(sizes)):
                raise ConfigError(
                    "loss must be the same at every call, but it draws random numbers; engine full allows that"
                )
        ctx.save_for_backward(images, labels, sizes, checkpoints)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        """Return the derivatives with respect to images, labels, step sizes and the initial state."""
        images, labels, sizes, checkpoints = ctx.saved_tensors
        images, labels = (leaf(x, want) for x, want in zip((images, labels), ctx.needs_input_grad[4:6], strict=True))
        totals = [torch.zeros_like(x) if x.requires_grad else None for x in (images, labels)]
        d_sizes = torch.empty_like(sizes)
        # The forward pass ran without autocast, whose dtype would otherwise be that of the caller's backward pass.
        with torch.autocast(checkpoints.device.type, enabled=False):
            for i in reversed(range(len(checkpoints))):
                steps = slice(i * ctx.length, (i + 1) * ctx.length)
                segment = Segment(
                    ctx.loop, checkpoints[i].unbind(), images, labels, sizes[steps], ctx.first + steps.start
                )
                adjoints = ctx.segment_backward(segment, adjoint)
                adjoint, d_sizes[steps] = adjoints.state, adjoints.sizes
                for total, derivative in zip(totals, (adjoints.images, adjoints.labels), strict=True):
                    if total is not None:
                        total += derivative
        return None, None, None, None, *totals, d_sizes, *adjoint


def rng_state(like: Tensor) -> Tensor:
    """Return the state of the random number generator of a tensor's device."""
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()


@functools.cache
def raise_mmap_threshold() -> None:
    """Make glibc keep freed memory for reuse, by freeing one large block that is never touched.

    By default glibc returns every large block to the system when it is freed, and the next step pays for its pages
    again. When such a block is freed, glibc raises the size from which it does so to that of the block, and keeps up
    to twice as much free memory: see M_MMAP_THRESHOLD in mallopt(3). Other allocators are not affected.
    """
    # 32 MiB is the largest threshold that glibc adapts to (DEFAULT_MMAP_THRESHOLD_MAX); the block stays below it.
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
