"""Sweeps along a chain in torch: one matrix product per step, both sides at once where their shapes agree.

For one sample with features phi and state v, a step is v'_r = sum_kl phi_k v_l A_klr. Over a batch that is one product
of the matrices (n_out, d n_in) and (d n_in, samples); the matrix sum_k phi_k A_k of a sample is never formed. The
gradients of many cores are one batched product of the states and their gradients, which are kept.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from kdzoo.tensor_networks.layout import Layout

EVERY = 16
"""Sites between two rescalings of the states."""
CHUNK = 64
"""Steps whose core gradients are one product; it bounds what is held beside the states."""


def forward(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Sweep from both ends towards the output.

    Args:
        phi: features (sites, d, samples) in the chain's order.
        cores: all cores in one vector.
        starts: state (bond, samples) at the left and at the right end.
        plan: where the cores lie.

    Returns:
        All states (numbers, samples), each divided every 16 sites by a power of two per sample; these inverse powers
        (2, rescalings, samples); and the sums of their exponents, by which the ends are too small (2, samples).
    """
    phi, samples = phi[plan.order], phi.shape[2]
    states = phi.new_empty(plan.n_states, samples)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for side, start in enumerate(starts):
        state(states, plan, side, 0).copy_(start)
    for step, sides in _steps(plan):
        n, side, (d, n_in, n_out) = len(sides), sides[0], plan.shape(sides[0], step)
        before = _stack(states, plan.states[side][step], (n, 1, n_in, samples))
        after = _stack(states, plan.states[side][step + 1], (n, n_out, samples))
        matrices = _stack(cores, plan.cores[side][step], (n, d * n_in, n_out))
        features = _stack(phi, plan.slots[side][step], (n, d, 1, samples))
        torch.bmm(matrices.transpose(1, 2), (features * before).flatten(1, 2), out=after)
        if (step + 1) % EVERY == 0:
            exponents = torch.frexp(after.abs().amax(1)).exponent  # 0 of what is 0, infinite or NaN
            scale = torch.ldexp(torch.ones_like(after[:, 0]), -exponents)
            for i, one in enumerate(sides):
                scales[one, step // EVERY] = scale[i]
                log2[one] += exponents[i]
            after *= scale[:, None]
    return states, scales, log2


def backward(
    phi: Tensor,
    cores: Tensor,
    saved: tuple[Tensor, Tensor],
    ends: tuple[Tensor, Tensor],
    plan: Layout,
    *,
    of_phi: bool,
) -> tuple[Tensor | None, Tensor, tuple[Tensor, Tensor]]:
    """Return the gradients of the features (if asked for), the cores and the starts.

    Args:
        phi: features (sites, d, samples) in the chain's order.
        cores: all cores in one vector.
        saved: states and inverse powers of ``forward``.
        ends: gradient (bond, samples) of the last state of each side.
        plan: where the cores lie.
        of_phi: whether the gradient of the features is wanted.
    """
    states, scales = saved
    phi, samples = phi[plan.order], phi.shape[2]
    gradients = torch.empty_like(states)  # of every state before it was rescaled
    core_gradients = torch.empty_like(cores)
    phi_gradients = torch.empty_like(phi) if of_phi else None
    for side, end in enumerate(ends):
        state(gradients, plan, side, len(plan.sides[side]) - 1).copy_(end)
    for step, sides in _steps(plan, backwards=True):
        n, side, (d, n_in, n_out) = len(sides), sides[0], plan.shape(sides[0], step)
        after = _stack(gradients, plan.states[side][step + 1], (n, n_out, samples))
        if (step + 1) % EVERY == 0:
            after *= torch.stack([scales[one, step // EVERY] for one in sides])[:, None]
        matrices = _stack(cores, plan.cores[side][step], (n, d * n_in, n_out))
        product = torch.bmm(matrices, after).view(n, d, n_in, samples)
        features = _stack(phi, plan.slots[side][step], (n, d, 1, samples))
        torch.sum(features * product, 1, out=_stack(gradients, plan.states[side][step], (n, n_in, samples)))
        if phi_gradients is not None:
            before = _stack(states, plan.states[side][step], (n, 1, n_in, samples))
            _stack(phi_gradients, plan.slots[side][step], (n, d, samples)).copy_((before * product).sum(2))
    for first, last, sides in _runs(plan):
        n, side, (d, n_in, n_out) = (last - first) * len(sides), sides[0], plan.shape(sides[0], first)
        before = _stack(states, plan.states[side][first], (n, 1, n_in, samples))
        after = _stack(gradients, plan.states[side][first + 1], (n, n_out, samples))
        features = _stack(phi, plan.slots[side][first], (n, d, 1, samples))
        place = _stack(core_gradients, plan.cores[side][first], (n, d * n_in, n_out))
        torch.bmm((features * before).flatten(1, 2), after.transpose(1, 2), out=place)
    if phi_gradients is not None:
        phi_gradients = torch.empty_like(phi).index_copy_(0, torch.tensor(plan.order, device=phi.device), phi_gradients)
    starts = (state(gradients, plan, 0, 0), state(gradients, plan, 1, 0))
    return phi_gradients, core_gradients, starts


def state(states: Tensor, plan: Layout, side: int, step: int) -> Tensor:
    """Return a view (bond, samples) of the state of a side before its core ``step``."""
    at = plan.states[side][step]
    return states[at : at + plan.sides[side][step]]


def _steps(plan: Layout, *, backwards: bool = False) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (step, sides that take it in one product), towards the output or away from it."""
    left, right = plan.sides
    steps = range(max(len(left), len(right)) - 1)
    for step in reversed(steps) if backwards else steps:
        if left[step : step + 2] == right[step : step + 2]:
            yield step, (0, 1)
        else:
            yield from ((step, (side,)) for side in (0, 1) if step + 1 < len(plan.sides[side]))


def _runs(plan: Layout) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield (first step, step after the last, sides) of steps of one shape whose cores and states lie in a row."""
    first, last = 0, 0
    known: tuple[int, ...] = ()
    for step, sides in _steps(plan):
        if sides == known and step - first < CHUNK and _in_a_row(plan, sides, first, step):
            last = step + 1
            continue
        if known:
            yield first, last, known
        first, last, known = step, step + 1, sides
    if known:
        yield first, last, known


def _in_a_row(plan: Layout, sides: tuple[int, ...], first: int, step: int) -> bool:
    """Return whether cores, states before and states after ``step`` are where a stack that begins at ``first`` ends."""
    shape, side, n = plan.shape(sides[0], first), sides[0], (step - first) * len(sides)
    expected = (
        plan.cores[side][first] + n * shape[0] * shape[1] * shape[2],
        plan.states[side][first] + n * shape[1],
        plan.states[side][first + 1] + n * shape[2],
    )
    found = (plan.cores[side][step], plan.states[side][step], plan.states[side][step + 1])
    return plan.shape(side, step) == shape and found == expected


def _stack(flat: Tensor, at: int, shape: tuple[int, ...]) -> Tensor:
    """Return a view of ``shape`` of what lies in ``flat`` from row ``at`` on."""
    rows = prod(shape) if flat.ndim == 1 else prod(shape) // flat[0].numel()
    return flat[at : at + rows].view(shape)
