"""Inner training as a differentiable function of its data, its step sizes and its initial weights."""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import choice, integer
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll.engines import ENGINES, differentiable
from kdzoo.functional.unroll.inner_loop import Descent, InnerLoss
from kdzoo.functional.unroll.optimizers import SGD, Optimizer


def unroll(
    weights: Float[Tensor, "K P"],
    images: Float[Tensor, " M *d"],
    labels: Float[Tensor, "M C"],
    step_sizes: Float[Tensor, " N"],
    *,
    loss: InnerLoss,
    optimizer: Optimizer = SGD(),  # noqa: B008 -- frozen
    engine: str = "segments",
    window: int | None = None,
) -> Float[Tensor, "K P"]:
    """Return the weights after N inner steps, differentiable with respect to everything they come from.

    Args:
        weights: K initialisations of a network with P weights.
        images: Inputs, one for each of M examples.
        labels: Soft labels of C classes.
        step_sizes: The step size of each of N inner steps, N >= 1.
        loss: The inner loss; the sum over the K, each one's mean over the M. It must be a function of its three
            arguments alone, twice differentiable, and the same at every call: no dropout, no statistics of batches.
        optimizer: The inner optimiser.
        engine: ``full`` keeps the graph of every step and is the fastest; ``segments`` keeps some states and rebuilds
            the steps between two of them on the way back; ``reverse`` and ``jvp`` keep the graph of one step only and
            follow the recursion step by step, by reverse and by forward mode: they need least memory.
        window: Differentiate through the last so many steps only, 1 to N; the steps before have no gradient, nor have
            the initial weights. All steps, if None.

    Raises:
        ConfigError: If an argument is wrong, or the loss not twice differentiable.
        NonFiniteLossError: If the weights are not finite at the end.

    Example:
        >>> w, x, y = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1, requires_grad=True)
        >>> end = unroll(w, x, y, torch.tensor([0.5, 0.5]), loss=lambda w, x, y: ((x @ w.T - y) ** 2).sum() / 2)
        >>> end.detach(), torch.autograd.grad(end.sum(), y)
        (tensor([[0.7500]]), (tensor([[0.7500]]),))
    """
    check(weights, step_sizes, engine, window)
    descent, differentiate = Descent(loss, optimizer), torch.is_grad_enabled()
    with (
        torch.autocast(weights.device.type, enabled=False),  # a derivative of a derivative needs the digits
        torch.inference_mode(False),  # or there would be no gradients of the inner loss either
        torch.set_grad_enabled(differentiate),
    ):
        w, x, y, sizes = (one.clone() if one.is_inference() else one for one in (weights, images, labels, step_sizes))
        end = unrolled(descent, w, x, y, sizes, engine, len(sizes) - (window or len(sizes)))
        if not end.isfinite().all():
            raise diverged(descent, w, x, y, sizes)
    return end


def unrolled(
    descent: Descent, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor, engine: str, skipped: int
) -> Float[Tensor, "K P"]:
    """Return the weights after all steps, differentiable through all but the skipped ones."""
    if not torch.is_grad_enabled() or not any(one.requires_grad for one in (weights, images, labels, sizes)):
        skipped = len(sizes)
    state = descent.optimizer.start(weights)
    if skipped:
        state = descent.steps(tuple(part.detach() for part in state), images, labels, sizes[:skipped], 0)
    if skipped < len(sizes):
        state = differentiable(engine, descent, state, images, labels, sizes[skipped:], skipped)
    return state[0]


def check(weights: Tensor, step_sizes: Tensor, engine: str, window: int | None) -> None:
    """Refuse arguments that do not fit."""
    choice("engine", engine, ENGINES)
    if weights.ndim != 2:
        raise ConfigError(f"weights must have shape [K, P], got {tuple(weights.shape)}")
    if step_sizes.ndim != 1 or len(step_sizes) == 0:
        raise ConfigError(f"step_sizes must have shape [N] with N >= 1, got {tuple(step_sizes.shape)}")
    if window is not None:
        integer("window", window, most=len(step_sizes))


def diverged(descent: Descent, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor) -> NonFiniteLossError:
    """Return the error that names the first step after which the weights are not finite, found by taking them again."""
    if not weights.isfinite().all():
        return NonFiniteLossError("the initial weights of the inner steps are not all finite")
    state, number, sizes = descent.optimizer.start(weights.detach()), 0, sizes.detach()
    for number, size in enumerate(sizes):
        state = descent.step(state, images, labels, size, number)
        if not state[0].isfinite().all():
            break
    return NonFiniteLossError(
        f"the weights are not finite after inner step {number + 1} of {len(sizes)}, "
        f"whose step size is {float(sizes[number]):g}; a smaller one may help"
    )
