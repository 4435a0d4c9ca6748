"""Sweeps that optimise two sites at a time and let the data decide the bond between them.

The leg of the outputs travels along the chain. Where it is, the cores of two neighbouring sites are merged into one
tensor W. The outputs are linear in W; the features are the states of both sides and the features of both sites:

    f_o = sum_labr  left_l phi_a phi_b right_r  W_labr,o

So a cross entropy or a divergence is convex in W. After one optimisation step W is split by its singular values; small
ones are cut, and the bond becomes as large as needed. All other cores are isometries in features that are white under
the data, so that the cut values are those that matter least for the function.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.progress import track
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.network import canonical_form, check_open, split_svd
from kdzoo.tensor_networks.truncation import whitened_legs

Update = Callable[[Tensor, Tensor], Tensor]
"""Returns better weights ``[features, outputs]`` from features ``[samples, features]`` and weights."""
Objective = Callable[[Tensor], Tensor]
"""Returns the loss, a scalar that can be differentiated twice, of outputs ``[samples, outputs]``."""
# How often a step that does not lower the loss is halved before it is given up. The loss is convex, so that a shorter
# step always helps unless the point is optimal; after six halvings, 1/64 of the step, what is left to gain is small.
HALVINGS = 6


def sweep(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    phi: Tensor,
    update: Update,
    *,
    bond_dim: int,
    max_error: float = 0.0,
) -> tuple[list[Tensor], Tensor]:
    """Return the chain after one sweep from the output to the right end, to the left end, and back.

    The states of all samples next to the two sites are updated along the way; a step costs the contraction of one site.
    Arguments are not changed, so that the chain is unchanged if a decomposition fails.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain of two or more sites, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site, also afterwards.
        phi: Features ``[sites, d, samples]`` of all samples in the order of the chain, float64.
        update: Improves the weights of two merged cores.
        bond_dim: Largest bond, >= 1.
        max_error: Norm of what each decomposition may cut, relative to that of its tensor, in [0, 1).

    Returns:
        The cores and the output core.

    Raises:
        ConfigError: An argument is outside its range, the chain is periodic or has only one site.
        NonFiniteLossError: A decomposition or a step fails.

    References:
        Stoudenmire, Schwab: Supervised learning with tensor networks. NeurIPS 2016, arXiv:1605.05775, section 4.
    """
    limits = validation.integer("bond_dim", bond_dim), validation.probability("max_error", max_error) or None
    check_open(sites, centre, out_site, "a sweep")
    if (n := len(sites)) < 2:
        raise ConfigError(f"a sweep over two sites at a time needs a chain of two sites or more, got {n}")
    whiten, unwhiten = whitened_legs(gram_matrices(phi))
    white = [torch.einsum("lkr,kj->ljr", core, matrix) for core, matrix in zip(sites, unwhiten, strict=True)]
    cores, centre = canonical_form(white, centre, out_site)
    first = min(out_site, n - 1)
    state = _Sweep(cores, (whiten @ phi).mT, first, _absorb(cores[first], centre, first == out_site), update, limits)
    for target in track((*range(first + 1, n), *range(n - 2, -1, -1), *range(1, first + 1)), "sweeping", unit="bonds"):
        if target > state.at:
            state.step_right()
        else:
            state.step_left()
    centre = state.release_outputs(before=state.at == out_site)
    return [torch.einsum("ljr,jk->lkr", core, matrix) for core, matrix in zip(cores, whiten, strict=True)], centre


def newton_step(features: Tensor, weights: Tensor, objective: Objective, *, damping: float, iterations: int) -> Tensor:
    """Return weights with a smaller loss, after one damped Newton step that is solved by conjugate gradients.

    The outputs ``features @ weights`` are linear, so that the Hessian is that of a generalised linear model. If the
    loss is not smaller, the step is halved, up to six times; then the weights are returned as they are.

    Args:
        features: Inputs of the linear model ``[samples, features]``, float64.
        weights: Current weights ``[features, outputs]``.
        objective: Convex loss of the outputs.
        damping: Added to the curvature, >= 0; with white features it penalises the change of the function.
        iterations: Iterations of conjugate gradients, >= 1; few of them regularise as well.

    Returns:
        The new weights ``[features, outputs]``.

    References:
        Martens: Deep learning via Hessian-free optimization. ICML 2010.
    """
    with torch.enable_grad():
        outputs = (features @ weights).requires_grad_()
        value = objective(outputs)
        (slope,) = torch.autograd.grad(value, outputs, create_graph=True)

    def curvature(direction: Tensor) -> Tensor:
        # The product of the Hessian of the outputs with a direction, without forming the Hessian.
        (product,) = torch.autograd.grad(slope, outputs, features @ direction, retain_graph=True)
        return features.T @ product + damping * direction

    step = _conjugate_gradients(curvature, -(features.T @ slope.detach()), iterations)
    change = features @ step
    for _ in range(HALVINGS):
        if objective(outputs.detach() + change) < value.detach():
            return weights + step
        step, change = step / 2, change / 2
    return weights


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Return an approximate solution of ``matrix(x) = right`` for a symmetric positive matrix, from x = 0."""
    solution, residual = torch.zeros_like(right), right
    direction, size = residual, float(residual.square().sum())
    smallest = 1e-20 * size  # of a square: the residual has lost ten digits, and the rest is rounding
    for _ in range(iterations):
        if size <= smallest:
            break
        image = matrix(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:  # rounding: the Hessian of a convex loss has no negative direction
            break
        length = size / curvature
        solution, residual = solution + length * direction, residual - length * image
        previous, size = size, float(residual.square().sum())
        direction = residual + (size / previous) * direction
    return solution


class _Sweep:
    """A chain during a sweep: one of its cores, the carrier, also holds the leg of the outputs.

    Args:
        cores: Core ``[left, d, right]`` of every site in white features; replaced in place.
        white: White features ``[sites, samples, d]``.
        at: The site of the carrier.
        carrier: Core ``[left, d, outputs, right]`` of that site.
        update: Improves the weights of two merged cores.
        limits: Largest bond, and largest relative error of a decomposition or None.
    """

    def __init__(
        self,
        cores: list[Tensor],
        white: Tensor,
        at: int,
        carrier: Tensor,
        update: Update,
        limits: tuple[int, float | None],
    ) -> None:
        self.cores, self.white, self.at, self.carrier, self.update = cores, white, at, carrier, update
        self.bond_dim, self.max_error = limits
        n, ones = len(cores), white.new_ones(white.shape[1], 1)
        # States [samples, bond] of all samples, by the site that follows their bond.
        self.left, self.right = {0: ones}, {n: ones}
        for i in range(at):
            self._extend_left(i)
        for i in reversed(range(at + 1, n)):
            self._extend_right(i)

    def step_right(self) -> None:
        """Optimise the carrier with the site to its right, which becomes the carrier."""
        at = self.at
        merged = self._updated(torch.einsum("laok,kbr->laobr", self.carrier, self.cores[at + 1]), at)
        self.cores[at], right, values, _ = split_svd(merged, self.bond_dim, self.max_error, legs=2)
        self.carrier = (values[:, None, None, None] * right).transpose(1, 2)
        self._extend_left(at)
        self.at = at + 1

    def step_left(self) -> None:
        """Optimise the carrier with the site to its left, which becomes the carrier."""
        at = self.at
        merged = self._updated(torch.einsum("lak,kbor->laobr", self.cores[at - 1], self.carrier), at - 1)
        left, self.cores[at], values, _ = split_svd(merged, self.bond_dim, self.max_error, legs=3)
        self.carrier = left * values
        self._extend_right(at)
        self.at = at - 1

    def release_outputs(self, before: bool) -> Tensor:
        """Split off an output core before or behind the carrier, optimise it and return it."""
        at = self.at
        self.cores[at], centre = _release(self.carrier, self.bond_dim, self.max_error, before)
        weights = centre.transpose(1, 2)
        if before:
            self._extend_right(at)
            left, right = self.left[at], self.right[at]
        else:
            self._extend_left(at)
            left, right = self.left[at + 1], self.right[at + 1]
        products = (left[:, :, None] * right[:, None, :]).flatten(1)
        better = _check_finite(self.update(products, weights.flatten(0, 1)), "the output core")
        return better.view(weights.shape).transpose(1, 2)

    def _updated(self, merged: Tensor, i: int) -> Tensor:
        """Return the tensor ``[left, d, outputs, d, right]`` of the sites i and i + 1 after its step."""
        weights = merged.permute(0, 1, 3, 4, 2)
        better = _check_finite(self.update(self._products(i), weights.flatten(0, 3)), f"sites {i} and {i + 1}")
        return better.view(weights.shape).permute(0, 1, 4, 2, 3)

    def _products(self, i: int) -> Tensor:
        """Return the products ``[samples, left d d right]`` of the features of sites i, i + 1 and adjacent states."""
        products = self.left[i]
        for factor in (*self.white[i : i + 2], self.right[i + 2]):
            products = (products[:, :, None] * factor[:, None, :]).flatten(1)
        return products

    def _extend_left(self, i: int) -> None:
        """Take the state from the left across site i."""
        self.left[i + 1] = torch.einsum("nl,nk,lkr->nr", self.left[i], self.white[i], self.cores[i])

    def _extend_right(self, i: int) -> None:
        """Take the state from the right across site i."""
        self.right[i] = torch.einsum("nr,nk,lkr->nl", self.right[i + 1], self.white[i], self.cores[i])


def _check_finite(weights: Tensor, where: str) -> Tensor:
    """Return the weights if they are finite."""
    if not weights.isfinite().all():
        raise NonFiniteLossError(f"the step of {where} in a sweep is not finite; nothing was changed")
    return weights


def _absorb(core: Tensor, centre: Tensor, before: bool) -> Tensor:
    """Return the product ``[left, d, outputs, right]`` of a core and the output core before or behind it."""
    if before:
        return torch.einsum("lok,kar->laor", centre, core)
    return torch.einsum("lak,kor->laor", core, centre)


def _release(carrier: Tensor, bond_dim: int, max_error: float | None, before: bool) -> tuple[Tensor, Tensor]:
    """Return the core and the output core whose product is the carrier, up to what may be cut."""
    if before:
        left, core, values, _ = split_svd(carrier.transpose(1, 2), bond_dim, max_error)
        return core, left * values
    core, right, values, _ = split_svd(carrier, bond_dim, max_error)
    return core, values[:, None, None] * right
