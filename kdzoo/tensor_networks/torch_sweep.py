"""Sweeps along a chain in torch: one matrix product per step, both sides at once where their shapes agree.

For one sample with features phi and state v, a step is v'_r = sum_kl phi_k v_l A_klr. For a batch that is one product
of the matrices ``[n_out, d n_in]`` and ``[d n_in, samples]``; the matrix sum_k phi_k A_k of a sample, of size
``[n_in, n_out]``, is never formed. The gradients of many cores are one batched product of the stored states and their
gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from kdzoo.tensor_networks.layout import Layout

Sides = tuple[int, ...]
Swept = tuple[tuple[Tensor, Tensor], Tensor, tuple[Tensor, Tensor]]
# Sites between two rescalings of the states. Features and cores of size 100 leave float32 (10^38) after 19 sites, and
# rescaling more often would cost time. All engines use the same number, so that their results are equal.
EVERY = 16
# Most steps whose core gradients are one product: it bounds the memory that is used in addition to the states.
CHUNK = 32


def forward(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> Swept:
    """Sweep from both ends towards the output.

    Args:
        phi: Features ``[sites, d, samples]`` in the chain's order.
        cores: All cores in one vector.
        starts: State ``[bond, samples]`` at the left and at the right end.
        plan: Where the cores lie.

    Returns:
        The last state ``[bond, samples]`` of each side; the sums of the exponents by which they are too small
        ``[2, samples]``; and what the backward pass needs: all states ``[n_states, samples]``, divided every 16 sites
        by a power of two per sample, and the inverses of these powers ``[2, rescalings, samples]``.
    """
    phi, samples = phi[plan.order], phi.shape[2]
    states = phi.new_empty(plan.n_states, samples)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for side, start in enumerate(starts):
        state(states, plan, side, 0).copy_(start)
    for run in _runs(plan):
        features, matrices = run.features(phi), run.matrices(cores).transpose(2, 3)
        product = phi.new_empty(len(run.sides), plan.d, run.n_in, samples)
        flat = product.flatten(1, 2)
        stacks = (features, run.before(states), matrices, run.after(states))
        steps = zip(*(stack.unbind() for stack in stacks), strict=True)
        for step, (feature, before, matrix, after) in enumerate(steps, run.first):
            torch.mul(feature, before, out=product)
            torch.bmm(matrix, flat, out=after)
            if (step + 1) % EVERY == 0:
                _rescale(after, run.sides, scales[:, step // EVERY], log2)
    return (state(states, plan, 0, -1), state(states, plan, 1, -1)), log2, (states, scales)


def _rescale(after: Tensor, sides: Sides, scales: Tensor, log2: Tensor) -> None:
    """Divide states ``[sides, bond, samples]`` by powers of two, in place; store the inverses, and add the exponents.

    Powers of two make the division exact.
    """
    exponents = torch.frexp(after.abs().amax(1)).exponent  # 0 for what is 0, infinite or NaN
    inverse = torch.ldexp(torch.ones_like(after[:, 0]), -exponents)
    chosen = slice(sides[0], sides[-1] + 1)
    scales[chosen] = inverse
    log2[chosen] += exponents
    after *= inverse[:, None]


def backward(
    phi: Tensor,
    cores: Tensor,
    saved: tuple[Tensor, Tensor],
    ends: tuple[Tensor, Tensor],
    plan: Layout,
    *,
    of_phi: bool,
) -> tuple[Tensor | None, Tensor, tuple[Tensor, Tensor]]:
    """Return the gradients of the features (or None), the cores and the starts.

    Args:
        phi: Features ``[sites, d, samples]`` in the chain's order.
        cores: All cores in one vector.
        saved: States and inverse powers from ``forward``.
        ends: Gradient ``[bond, samples]`` of the last state of each side.
        plan: Where the cores lie.
        of_phi: Whether the gradient of the features is needed.
    """
    states, scales = saved
    phi, samples = phi[plan.order], phi.shape[2]
    gradients = torch.empty_like(states)  # of every state before it was rescaled
    core_gradients = torch.empty_like(cores)
    phi_gradients = torch.empty_like(phi) if of_phi else None
    for side, end in enumerate(ends):
        state(gradients, plan, side, -1).copy_(end)
    for run in reversed(_runs(plan)):
        n, n_in, n_out = len(run.sides), run.n_in, run.n_out
        features, befores, afters = run.features(phi), run.before(states), run.after(gradients)
        matrices = run.matrices(cores)
        turned = matrices.view(-1, n, plan.d, n_in, n_out).transpose(2, 3).flatten(3)  # [steps, sides, n_in, d n_out]
        product = phi.new_empty(n, plan.d, n_out, samples)
        flat = product.flatten(1, 2)
        stacks = (features, afters, turned, run.before(gradients).squeeze(2))
        steps = zip(*(stack.unbind() for stack in stacks), strict=True)
        for step, (feature, after, matrix, before) in reversed(list(enumerate(steps, run.first))):
            if (step + 1) % EVERY == 0:  # from the rescaled state back to the one before
                after *= scales[run.sides[0] : run.sides[-1] + 1, step // EVERY, None]
            torch.mul(feature, after[:, None], out=product)
            torch.bmm(matrix, flat, out=before)
        place = run.matrices(core_gradients).flatten(0, 1)
        torch.bmm((features * befores).flatten(0, 1).flatten(1, 2), afters.flatten(0, 1).transpose(1, 2), out=place)
        if phi_gradients is not None:
            products = (matrices @ afters).view(-1, n, plan.d, n_in, samples)
            torch.sum(befores * products, 3, keepdim=True, out=run.features(phi_gradients))
    if phi_gradients is not None:
        order = torch.tensor(plan.order).to(phi.device, non_blocking=True)
        phi_gradients = torch.empty_like(phi).index_copy_(0, order, phi_gradients)
    starts = (state(gradients, plan, 0, 0), state(gradients, plan, 1, 0))
    return phi_gradients, core_gradients, starts


def state(states: Tensor, plan: Layout, side: int, step: int) -> Tensor:
    """Return a view ``[bond, samples]`` of the state of a side before its core ``step``; -1 for the last state."""
    offset = plan.states[side][step]
    return states[offset : offset + plan.sides[side][step]]


@dataclass(frozen=True)
class Run:
    """Consecutive steps with cores of one shape, whose cores and states are stored one after the other.

    Attributes:
        first: The first step.
        last: The step after the last.
        sides: The sides that take these steps in one product; 0 is the left one, 1 the right one.
        plan: Where the cores lie.
    """

    first: int
    last: int
    sides: Sides
    plan: Layout

    @property
    def n_in(self) -> int:
        """Bond before a site."""
        return self.plan.sides[self.sides[0]][self.first]

    @property
    def n_out(self) -> int:
        """Bond after a site."""
        return self.plan.sides[self.sides[0]][self.first + 1]

    def features(self, phi: Tensor) -> Tensor:
        """Return the features ``[steps, sides, d, 1, samples]``, from ``phi`` in the order of the cores."""
        return self._view(phi, self.plan.slots[self.sides[0]][self.first], self.plan.d, 1, phi.shape[2])

    def matrices(self, cores: Tensor) -> Tensor:
        """Return the cores ``[steps, sides, d n_in, n_out]``."""
        return self._view(cores, self.plan.cores[self.sides[0]][self.first], self.plan.d * self.n_in, self.n_out)

    def before(self, states: Tensor) -> Tensor:
        """Return the states ``[steps, sides, 1, n_in, samples]`` before the steps."""
        return self._view(states, self.plan.states[self.sides[0]][self.first], 1, self.n_in, states.shape[1])

    def after(self, states: Tensor) -> Tensor:
        """Return the states ``[steps, sides, n_out, samples]`` after the steps."""
        return self._view(states, self.plan.states[self.sides[0]][self.first + 1], self.n_out, states.shape[1])

    def _view(self, flat: Tensor, at: int, *shape: int) -> Tensor:
        """Return a view ``[steps, sides, *shape]`` of ``flat`` from row ``at`` on."""
        full_shape = (self.last - self.first, len(self.sides), *shape)
        rows = prod(full_shape) // prod(flat.shape[1:])
        return flat[at : at + rows].view(full_shape)


@lru_cache(maxsize=256)  # as many as layouts
def _runs(plan: Layout) -> tuple[Run, ...]:
    """Return the runs, none longer than ``CHUNK``, in the order of their first steps."""
    runs: list[Run] = []
    for step, sides in _steps(plan):
        last = runs[-1] if runs else None
        if last and sides == last.sides and step - last.first < CHUNK and _in_a_row(plan, sides, last.first, step):
            runs[-1] = replace(last, last=step + 1)
        else:
            runs.append(Run(step, step + 1, sides, plan))
    return tuple(runs)


def _steps(plan: Layout) -> Iterator[tuple[int, Sides]]:
    """Yield each step and the sides that take it in one product, towards the output."""
    left, right = plan.sides
    for step in range(max(len(left), len(right)) - 1):
        if left[step : step + 2] == right[step : step + 2]:
            yield step, (0, 1)
        else:
            yield from ((step, (side,)) for side in (0, 1) if step + 1 < len(plan.sides[side]))


def _in_a_row(plan: Layout, sides: Sides, first: int, step: int) -> bool:
    """Return whether cores, states before and states after ``step`` follow those of a run that begins at ``first``."""
    shape, side, n = plan.shape(sides[0], first), sides[0], (step - first) * len(sides)
    expected = (
        plan.cores[side][first] + n * shape[0] * shape[1] * shape[2],
        plan.states[side][first] + n * shape[1],
        plan.states[side][first + 1] + n * shape[2],
    )
    actual = (plan.cores[side][step], plan.states[side][step], plan.states[side][step + 1])
    return plan.shape(side, step) == shape and actual == expected
