"""The engines: each is a number of steps between checkpoints and a way back from one checkpoint to the one before.

``full`` keeps the graph of all steps and is plain autograd. The others keep the state at every so-many-th step and
rebuild what lies between on the way back, in one ``torch.autograd.Function``.
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
from kdzoo.functional.unroll.inner_loop import Descent
from kdzoo.functional.unroll.optimizers import State
from kdzoo.functional.unroll.segment_backward import Pullback, Steps, by_recursion, by_tangent, leaf, through_graph


@dataclass(frozen=True)
class Engine:
    """A way back.

    Args:
        pullback: From the end to the start of a stretch of steps.
        stretch: The number of steps between two kept states, of the number of all steps.
        graph: Whether the last stretch keeps its graph, so that it need not be taken again.
    """

    pullback: Pullback
    stretch: Callable[[int], int]
    graph: bool = False


def root(steps: int) -> int:
    """Return the least number whose square is at least the number of steps."""
    return math.isqrt(steps - 1) + 1


def half_root(steps: int) -> int:
    """Return half of that, at least 1, since the graph of a step weighs more than a state."""
    return (root(steps) + 1) // 2


WAYS = {
    "reverse": Engine(by_recursion, root),
    "segments": Engine(through_graph, half_root, graph=True),
    "jvp": Engine(by_tangent, root),
}
ENGINES = ("full", *WAYS)


def differentiable(
    engine: str, descent: Descent, state: State, images: Tensor, labels: Tensor, sizes: Float[Tensor, " n"], first: int
) -> State:
    """Return the state after a step of each size, differentiable by an engine."""
    way = WAYS.get(engine)
    head = 0
    keep_freed_memory()
    if way is not None:
        stretch = way.stretch(len(sizes))
        head = len(sizes) - (stretch if way.graph else 0)
        if head:
            state = Checkpointed.apply(descent, way.pullback, stretch, first, images, labels, sizes[:head], *state)
    if head < len(sizes) and not state[0].requires_grad:
        state = (leaf(state[0]), *state[1:])
    return descent.graph(state, images, labels, sizes[head:], first + head)


class Checkpointed(torch.autograd.Function):
    """Inner steps without a graph, which keep the state at the start of every stretch for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        descent: Descent,
        pullback: Pullback,
        stretch: int,
        first: int,
        images: Tensor,
        labels: Tensor,
        sizes: Float[Tensor, " n"],
        *state: Tensor,
    ) -> State:
        """Return the state after the last step."""
        ctx.descent, ctx.pullback, ctx.stretch, ctx.first = descent, pullback, stretch, first
        kept = state[0].new_empty(-(-len(sizes) // stretch), len(state), *state[0].shape)
        drawn = random_state(sizes)
        for i, size in enumerate(sizes):
            if i % stretch == 0:
                torch.stack(state, out=kept[i // stretch])
            state = descent.step(state, images, labels, size, first + i)
            if i == 0 and not torch.equal(drawn, random_state(sizes)):
                raise ConfigError(
                    "loss must be the same at every call, but it draws random numbers; engine full allows that"
                )
        ctx.save_for_backward(images, labels, sizes, kept)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        """Return the derivatives with respect to images, labels, step sizes and the state at the start."""
        images, labels, sizes, kept = ctx.saved_tensors
        images, labels = (leaf(x, want) for x, want in zip((images, labels), ctx.needs_input_grad[4:6], strict=True))
        totals = [torch.zeros_like(x) if x.requires_grad else None for x in (images, labels)]
        d_sizes = torch.empty_like(sizes)
        with torch.autocast(kept.device.type, enabled=False):
            for i in reversed(range(len(kept))):
                part = slice(i * ctx.stretch, (i + 1) * ctx.stretch)
                steps = Steps(ctx.descent, kept[i].unbind(), images, labels, sizes[part], ctx.first + part.start)
                found = ctx.pullback(steps, adjoint)
                adjoint, d_sizes[part] = found.state, found.sizes
                for total, share in zip(totals, (found.images, found.labels), strict=True):
                    if total is not None:
                        total += share
        return None, None, None, None, *totals, d_sizes, *adjoint


def random_state(like: Tensor) -> Tensor:
    """Return the state of the random numbers of a tensor's device."""
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()


@functools.cache
def keep_freed_memory() -> None:
    """Free one large block of memory, upon which glibc keeps up to twice as much of what is freed later for reuse.

    Before that it hands every block back to the system, and the next step pays for its pages anew: see
    M_MMAP_THRESHOLD in mallopt(3). The block is never touched, and other allocators do not mind.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
