"""Sweeps that optimise two sites at a time and let the data decide the bond between them.

The output's leg travels along the chain. Where it is, the cores of two neighbours are merged into one tensor W, in
which the outputs are linear, with features that are the states of both sides and the features of both sites:

    f_o = sum_labr  left_l phi_a phi_b right_r  W_labr,o

So the loss of a cross entropy or a divergence is convex in W. After a step of its own, W is divided again by its
singular values; small ones are cut, and the bond becomes as large as it must. All other cores are isometries in
features that are white under the data, so that what is cut is the least of the function.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.network import canonical_form, check_open, split_svd
from kdzoo.tensor_networks.truncation import whitened_legs

Update = Callable[[Tensor, Tensor], Tensor]
"""Returns better weights (features, outputs) from features (samples, features) and weights."""
Objective = Callable[[Tensor], Tensor]
"""Returns the loss, a scalar that can be differentiated twice, of outputs (samples, outputs)."""
HALVINGS = 6
"""How often a step that does not lower the loss is halved before it is given up."""


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

    States of the samples before and behind the two sites are kept along the way; a step costs one site's contraction.
    Arguments are not changed, so that the chain is what it was if a decomposition fails.

    Args:
        sites: cores (n_left, d, n_right) of an open chain of two sites or more, float64.
        centre: output core (left, outputs, right).
        out_site: the output core is before this site, and will be again.
        phi: features (sites, d, samples) of all samples in the chain's order, float64.
        update: makes better weights of two merged cores.
        bond_dim: largest bond, >= 1.
        max_error: norm of what each decomposition may cut, relative to that of its tensor, in [0, 1).

    Raises:
        ConfigError: an argument is out of its range, the chain is periodic or has one site only.
        NonFiniteLossError: a decomposition fails.

    References:
        Stoudenmire, Schwab: Supervised learning with tensor networks. NeurIPS 2016, arXiv:1605.05775, section 4.
    """
    most, n = validation.integer("bond_dim", bond_dim), len(sites)
    allowed = validation.probability("max_error", max_error) or None
    check_open(sites, centre, out_site, "a sweep")
    if n < 2:
        raise ConfigError(f"a sweep over two sites at a time needs a chain of two sites or more, got {n}")
    turn, back = whitened_legs(gram_matrices(phi))
    white = (turn @ phi).mT  # (sites, samples, d)
    cores, centre = canonical_form(
        [torch.einsum("lkr,kj->ljr", core, one) for core, one in zip(sites, back, strict=True)], centre, out_site
    )
    at = min(out_site, n - 1)  # the site that carries the output's leg
    carrier = _absorbed(cores[at], centre, at == out_site)  # (left, a, output, right)
    states = _States(cores, white, at)

    def updated(merged: Tensor, i: int) -> Tensor:
        """Return the tensor (l, a, o, b, r) of the sites i and i + 1 after its step."""
        weights = merged.permute(0, 1, 3, 4, 2)
        better = _checked(update(states.features(i, i + 2), weights.flatten(0, 3)), f"sites {i} and {i + 1}")
        return better.view(weights.shape).permute(0, 1, 4, 2, 3)

    for to in (*range(at + 1, n), *range(n - 2, -1, -1), *range(1, at + 1)):
        if to > at:
            merged = updated(torch.einsum("laok,kbr->laobr", carrier, cores[to]), at)
            cores[at], right, values, _ = split_svd(merged, most, allowed, legs=2)
            carrier = (values[:, None, None, None] * right).transpose(1, 2)
            states.pass_right(at, cores[at])
        else:
            merged = updated(torch.einsum("lak,kbor->laobr", cores[to], carrier), to)
            left, cores[at], values, _ = split_svd(merged, most, allowed, legs=3)
            carrier = left * values
            states.pass_left(at, cores[at])
        at = to
    cores[at], centre = _parted(carrier, most, allowed, at == out_site)
    weights = centre.transpose(1, 2)
    before, behind = states.beside(at, cores[at], at == out_site)
    products = (before[:, :, None] * behind[:, None, :]).flatten(1)
    better = _checked(update(products, weights.flatten(0, 1)), "the output core")
    centre = better.view(weights.shape).transpose(1, 2)
    return [torch.einsum("ljr,jk->lkr", core, one) for core, one in zip(cores, turn, strict=True)], centre


def newton_step(features: Tensor, weights: Tensor, objective: Objective, *, damping: float, iterations: int) -> Tensor:
    """Return weights of a smaller loss, after one damped step of Newton by conjugate gradients.

    The outputs ``features @ weights`` are linear, so that the Hessian is that of a generalised linear model. Where the
    loss is not smaller, the step is halved, and given up in the end.

    Args:
        features: (samples, features), float64.
        weights: (features, outputs).
        objective: convex loss of the outputs.
        damping: added to the curvature, >= 0; in white features it holds back the change of the function.
        iterations: of the conjugate gradients, >= 1; few of them regularise, too.

    References:
        Martens: Deep learning via Hessian-free optimization. ICML 2010.
    """
    with torch.enable_grad():
        outputs = (features @ weights).requires_grad_()
        value = objective(outputs)
        (slope,) = torch.autograd.grad(value, outputs, create_graph=True)

    def curvature(direction: Tensor) -> Tensor:
        (bent,) = torch.autograd.grad(slope, outputs, features @ direction, retain_graph=True)
        return features.T @ bent + damping * direction

    step = _conjugate_gradients(curvature, -(features.T @ slope.detach()), iterations)
    moved = features @ step
    for _ in range(HALVINGS):
        if objective(outputs.detach() + moved) < value.detach():
            return weights + step
        step, moved = step / 2, moved / 2
    return weights


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Return an approximate solution of ``matrix(x) = right`` for a symmetric positive matrix, from x = 0."""
    found, rest = torch.zeros_like(right), right
    direction, size = rest, float(rest.square().sum())
    least = 1e-20 * size
    for _ in range(iterations):
        if size <= least:
            break
        image = matrix(direction)
        curved = float((direction * image).sum())
        if curved <= 0:  # rounding
            break
        length = size / curved
        found, rest = found + length * direction, rest - length * image
        before, size = size, float(rest.square().sum())
        direction = rest + (size / before) * direction
    return found


class _States:
    """The states of all samples at the bonds on either side of the sites that are being changed."""

    def __init__(self, cores: Sequence[Tensor], white: Tensor, at: int) -> None:
        self.white, n = white, len(cores)
        ones = white.new_ones(white.shape[1], 1)
        self.left, self.right = {0: ones}, {n: ones}  # by the site that follows the bond
        for i in range(at):
            self.pass_right(i, cores[i])
        for i in reversed(range(at + 1, n)):
            self.pass_left(i, cores[i])

    def pass_right(self, i: int, core: Tensor) -> None:
        """Take the state from the left across site i."""
        self.left[i + 1] = torch.einsum("nl,nk,lkr->nr", self.left[i], self.white[i], core)

    def pass_left(self, i: int, core: Tensor) -> None:
        """Take the state from the right across site i."""
        self.right[i] = torch.einsum("nr,nk,lkr->nl", self.right[i + 1], self.white[i], core)

    def features(self, first: int, last: int) -> Tensor:
        """Return the products (samples, l a b r) of the states beside sites first to last - 1 and their features."""
        found = self.left[first]
        for one in (*self.white[first:last], self.right[last]):
            found = (found[:, :, None] * one[:, None, :]).flatten(1)
        return found

    def beside(self, at: int, core: Tensor, before: bool) -> tuple[Tensor, Tensor]:
        """Return the states left and right of the output core, which is before or behind the site ``at``."""
        if before:
            self.pass_left(at, core)
            return self.left[at], self.right[at]
        self.pass_right(at, core)
        return self.left[at + 1], self.right[at + 1]


def _checked(weights: Tensor, where: str) -> Tensor:
    """Return weights that are finite."""
    if not weights.isfinite().all():
        raise NonFiniteLossError(f"the step of {where} in a sweep is not finite; nothing was changed")
    return weights


def _absorbed(core: Tensor, centre: Tensor, before: bool) -> Tensor:
    """Return a core (left, a, output, right) that carries the output's leg, of the output core before or behind it."""
    if before:
        return torch.einsum("lok,kar->laor", centre, core)
    return torch.einsum("lak,kor->laor", core, centre)


def _parted(carrier: Tensor, most: int, allowed: float | None, before: bool) -> tuple[Tensor, Tensor]:
    """Return the core and the output core of one that carries the output's leg."""
    if before:
        left, core, values, _ = split_svd(carrier.transpose(1, 2), most, allowed)
        return core, left * values
    core, right, values, _ = split_svd(carrier, most, allowed)
    return core, values[:, None, None] * right
