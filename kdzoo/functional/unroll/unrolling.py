"""Inner training as a differentiable function of its data, its step sizes and its initial weights."""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import choice, integer
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll.engines import ENGINES, differentiable_steps
from kdzoo.functional.unroll.inner_loop import InnerLoop, InnerLoss
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
    """Return the weights after N inner steps, differentiable with respect to all tensor arguments.

    Args:
        weights: Initial weights of K networks with P weights each, which are trained at once on the same data.
        images: Inputs ``[M, ...]``.
        labels: Soft labels ``[M, C]``.
        step_sizes: Step size of each of the N inner steps, N >= 1.
        loss: The inner loss: the sum over the K networks of the mean over the M examples. It must be a function of
            its three arguments alone, twice differentiable and the same at every call: no dropout, no batch statistics.
        optimizer: The inner optimizer.
        engine: ``full`` keeps the graph of every step and is the fastest. ``segments`` keeps some states and repeats
            the steps between two of them in the backward pass. ``reverse`` and ``jvp`` keep the graph of one step
            only and go back step by step, by reverse and by forward mode; they need the least memory.
        window: Number of last steps that are differentiated, 1 to N, or None for all. With fewer than N, earlier
            step sizes and the initial weights get no gradient.

    Raises:
        ConfigError: If an argument is not valid, or the loss is not twice differentiable.
        NonFiniteLossError: If the weights are not finite at the end.

    Example:
        >>> w, x, y = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1, requires_grad=True)
        >>> end = unroll(w, x, y, torch.tensor([0.5, 0.5]), loss=lambda w, x, y: ((x @ w.T - y) ** 2).sum() / 2)
        >>> end.detach(), torch.autograd.grad(end.sum(), y)
        (tensor([[0.7500]]), (tensor([[0.7500]]),))
    """
    _check_arguments(weights, step_sizes, engine, window)
    return _train(InnerLoop(loss, optimizer), weights, images, labels, step_sizes, engine, window or len(step_sizes))


def _train(
    loop: InnerLoop, weights: Tensor, images: Tensor, labels: Tensor, step_sizes: Tensor, engine: str, window: int
) -> Float[Tensor, "K P"]:
    """Run the inner steps outside of the caller's autocast and inference mode."""
    grad_enabled = torch.is_grad_enabled()
    with (
        torch.autocast(weights.device.type, enabled=False),  # second derivatives need more digits than half precision
        torch.inference_mode(False),  # there would be no gradients of the inner loss either
        torch.set_grad_enabled(grad_enabled),  # leaving inference mode has switched it on
    ):
        # Tensors that were made in inference mode cannot be saved for a backward pass; copies can.
        tensors = (weights, images, labels, step_sizes)
        w, x, y, sizes = (tensor.clone() if tensor.is_inference() else tensor for tensor in tensors)
        end = _run_steps(loop, w, x, y, sizes, engine, len(sizes) - window)
        if not end.isfinite().all():
            raise _divergence_error(loop, w, x, y, sizes)
    return end


def _run_steps(
    loop: InnerLoop, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor, engine: str, skipped: int
) -> Float[Tensor, "K P"]:
    """Return the weights after all steps, differentiable through all but the first ``skipped`` steps."""
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (weights, images, labels, sizes)):
        skipped = len(sizes)
    state = loop.optimizer.init_state(weights)
    if skipped:
        state = loop.steps(tuple(tensor.detach() for tensor in state), images, labels, sizes[:skipped], 0)
    if skipped < len(sizes):
        state = differentiable_steps(engine, loop, state, images, labels, sizes[skipped:], skipped)
    return state[0]


def _check_arguments(weights: Tensor, step_sizes: Tensor, engine: str, window: int | None) -> None:
    """Reject arguments of ``unroll`` that are not valid."""
    choice("engine", engine, ENGINES)
    if weights.ndim != 2:
        raise ConfigError(f"weights must have shape [K, P], got {tuple(weights.shape)}")
    if step_sizes.ndim != 1 or len(step_sizes) == 0:
        raise ConfigError(f"step_sizes must have shape [N] with N >= 1, got {tuple(step_sizes.shape)}")
    if window is not None:
        integer("window", window, most=len(step_sizes))


def _divergence_error(
    loop: InnerLoop, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor
) -> NonFiniteLossError:
    """Return the error that names the first step after which the weights are not finite."""
    if not weights.isfinite().all():
        return NonFiniteLossError("the initial weights of the inner steps are not all finite")
    # The steps are taken again: a check after every step would synchronize with an accelerator each time.
    state, number, sizes = loop.optimizer.init_state(weights.detach()), 0, sizes.detach()
    for number, size in enumerate(sizes):
        state = loop.step(state, images, labels, size, number)
        if not state[0].isfinite().all():
            break
    return NonFiniteLossError(
        f"the weights are not finite after inner step {number + 1} of {len(sizes)}, "
        f"whose step size is {float(sizes[number]):g}; a smaller one may help"
    )
