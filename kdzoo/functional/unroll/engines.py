"""The engines: each is a number of steps between checkpoints and a way back from one checkpoint to the one before.

``full`` keeps the graph of all steps and is plain autograd. The others keep the state at every so-many-th step and
rebuild what lies between on the way back, in one ``torch.autograd.Function``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdzoo.functional.unroll.descent import Descent
from kdzoo.functional.unroll.optimizers import State
from kdzoo.functional.unroll.pullbacks import Pullback, Steps, by_recursion, by_tangent, leaf, through_graph


@dataclass(frozen=True)
class Engine:
    """A way back.

    Args:
        pullback: From the end to the start of a stretch of steps.
        stretch: Number of steps between two checkpoints, of the number of all steps.
    """

    pullback: Pullback
    stretch: Callable[[int], int]


def root(steps: int) -> int:
    """Return the least number whose square is at least the number of steps."""
    return math.isqrt(steps - 1) + 1


ENGINES = {
    "full": None,
    "reverse": Engine(by_recursion, lambda _: 1),
    "segments": Engine(through_graph, root),
    "jvp": Engine(by_tangent, root),
}


class Checkpointed(torch.autograd.Function):
    """Inner steps without a graph, which keep the state at the start of every stretch for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        descent: Descent,
        engine: Engine,
        first: int,
        images: Tensor,
        labels: Tensor,
        sizes: Float[Tensor, " n"],
        *state: Tensor,
    ) -> Float[Tensor, "K P"]:
        """Return the weights after the last step."""
        ctx.descent, ctx.engine, ctx.first = descent, engine, first
        ctx.stretch = engine.stretch(len(sizes))
        kept = state[0].new_empty(-(-len(sizes) // ctx.stretch), len(state), *state[0].shape)
        put(kept[0], state)
        for i, (after, _) in enumerate(descent.walk(state, images, labels, sizes, first), start=1):
            if i % ctx.stretch == 0 and i < len(sizes):
                put(kept[i // ctx.stretch], after)
        ctx.save_for_backward(images, labels, sizes, kept)
        return after[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Float[Tensor, "K P"]) -> tuple[Tensor | None, ...]:
        """Return the derivatives with respect to images, labels, step sizes and the state at the start."""
        images, labels, sizes, kept = ctx.saved_tensors
        images, labels = (leaf(x, want) for x, want in zip((images, labels), ctx.needs_input_grad[3:5], strict=True))
        totals = [torch.zeros_like(x) if x.requires_grad else None for x in (images, labels)]
        d_sizes = torch.empty_like(sizes)
        adjoints: State = (adjoint, *(torch.zeros_like(adjoint) for _ in range(kept.shape[1] - 1)))
        for i in reversed(range(len(kept))):
            part = slice(i * ctx.stretch, (i + 1) * ctx.stretch)
            steps = Steps(ctx.descent, kept[i].unbind(), images, labels, sizes[part], ctx.first + part.start)
            found = ctx.engine.pullback(steps, adjoints)
            adjoints, d_sizes[part] = found.state, found.sizes
            for total, share in zip(totals, (found.images, found.labels), strict=True):
                if total is not None:
                    total += share
        return None, None, None, *totals, d_sizes, *adjoints


def put(place: Float[Tensor, "s K P"], state: State) -> None:
    """Write a state to its place among the checkpoints."""
    for row, part in zip(place, state, strict=True):
        row.copy_(part)
