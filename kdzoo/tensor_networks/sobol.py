"""Sobol indices: how the variance of a chain is divided among its inputs, exactly and without sampling.

If the inputs are independent, a function is a sum of one term for each set of inputs, and the terms are uncorrelated
(Sobol 1993). For a chain the variance of every term follows from two moments of the features of each site,

    E[phi phi'] = mean mean' + covariance

A term depends on the sites where the chain is squared with the covariance, and not on those where it is contracted with
the mean. If the first feature is 1 and the others are orthonormal, only the first one has a mean, and only the others
have variance. Every variance is computed as a sum of squares, so that nothing cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp

import numpy as np
import torch
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError

# Share of the largest variance of a feature below which a direction has no variance: rounding of float64, 2e-16, times
# the size of the sums.
NEGLIGIBLE = 1e-14

Steps = list[tuple[Tensor, Tensor]]
"""Matrices of the sites of one side, from its outer end: the mean ``[n_in, n_out]`` and, for each independent direction
of variance 1, the deviation ``[directions, n_in, n_out]``."""
State = tuple[Tensor, Tensor]
"""Mean and covariance of a vector."""


@dataclass(frozen=True)
class Moments:
    """First two moments of the features of every site under a product measure, in float64.

    Attributes:
        mean: Means ``[sites, d]``.
        covariance: Covariance matrices ``[sites, d, d]``.
    """

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Sobol:
    """How the variance of each output is divided among the inputs.

    Attributes:
        mean: Mean of every output ``[outputs]``.
        variance: Variance of every output ``[outputs]``.
        first: First-order indices ``[outputs, sites]``: share of the variance that an input explains alone.
        total: Total indices ``[outputs, sites]``: share of the variance in which an input has a part, alone or together
            with others.

    The indices of an output without variance are 0.

    References:
        Sobol: Sensitivity estimates for nonlinear mathematical models. Math. Model. Comput. Exp. 1, 1993.
        Homma, Saltelli: Importance measures in global sensitivity analysis. Reliab. Eng. Syst. Saf. 52, 1996.
    """

    mean: Tensor
    variance: Tensor
    first: Tensor
    total: Tensor


def feature_moments(phi: Tensor) -> Moments:
    """Return the moments of features ``[sites, d, samples]`` under the product of their marginal distributions."""
    phi = phi.double()
    shifted = phi - phi[..., :1]  # so that the variance of what never changes is exactly 0
    mean = shifted.mean(2)
    centred = shifted - mean[..., None]
    return Moments(phi[..., 0] + mean, centred @ centred.mT / phi.shape[2])


def sobol_indices(sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments) -> Sobol:
    """Return mean, variance, first-order and total Sobol indices of every output; O(sites d D^3 outputs) for bonds D.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        measure: Moments of the features.

    Raises:
        ConfigError: The measure has another number of sites or features.
    """
    left, right, exponent = _sides(sites, out_site, measure)
    before, beyond = _state_moments(left), _state_moments(right)
    centre = centre.double()
    from_left, from_right = _seen(centre, before[-1], beyond[-1])
    variance = _variance(before[-1], beyond[-1], from_left, from_right)
    on_left, on_right = _parts(left, before, from_left), _parts(right, beyond, from_right)
    shares = [
        torch.cat([left_parts, right_parts.flip(1)], 1) / variance.where(variance > 0, torch.inf)[:, None]
        for left_parts, right_parts in zip(on_left, on_right, strict=True)
    ]
    mean = from_left[0] @ before[-1][0]
    return Sobol(scaled(mean, exponent), scaled(variance, 2 * exponent), *shares)


def pairwise_indices(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments, among: Sequence[int] | None = None
) -> Tensor:
    """Return second-order Sobol indices: the share of the variance that two inputs explain only together.

    It takes O(sites k d D^2 outputs) operations for k sites, besides those of :func:`sobol_indices`.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        measure: Moments of the features.
        among: Sites of which all pairs are taken. None: all sites.

    Returns:
        Indices ``[outputs, k, k]``, symmetric, in the order of ``among``; 0 on the diagonal.

    Raises:
        ConfigError: The measure has another number of sites or features, or a site of ``among`` is not in the chain or
            is there twice.
    """
    last = len(sites) - 1
    chosen = [*range(last + 1)] if among is None else [integer("a site of among", i, least=0, most=last) for i in among]
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"among must hold every site once, got {chosen}")
    left, right, _ = _sides(sites, out_site, measure)
    centre, l_state, r_state = centre.double(), _state_moments(left)[-1], _state_moments(right)[-1]
    from_left, from_right = _seen(centre, l_state, r_state)
    variance = _variance(l_state, r_state, from_left, from_right)
    # Steps of each side, counted from its outer end.
    left_steps = sorted(i for i in chosen if i < out_site)
    right_steps = sorted(last - i for i in chosen if i >= out_site)
    l_rows, within_left = _pairs_of_side(left, left_steps, from_left[0])
    r_rows, within_right = _pairs_of_side(right, right_steps, from_right[0])
    across = [
        torch.einsum("kil,lr,mjr->kimj", l_rows, centre[:, o], r_rows).square().sum((1, 3))
        for o in range(centre.shape[1])
    ]
    n = len(left_steps)
    indices = torch.zeros(centre.shape[1], len(chosen), len(chosen), dtype=torch.float64)
    indices[:, :n, :n], indices[:, :n, n:], indices[:, n:, n:] = within_left, torch.stack(across), within_right
    indices = indices + indices.mT
    place = {site: i for i, site in enumerate([*left_steps, *(last - i for i in right_steps)])}
    order = torch.tensor([place[site] for site in chosen], dtype=torch.long)
    return indices[:, order][:, :, order] / variance.where(variance > 0, torch.inf)[:, None, None]


def rescaled(sites: Sequence[Tensor], out_site: int, grams: Tensor) -> tuple[list[Tensor], int]:
    """Return cores times powers of two, for which the states at every bond are about 1, and the exponent they lack.

    Args:
        sites: Cores ``[left, d, right]`` from the left end.
        out_site: The output core stands before this site.
        grams: Mean products of the features ``[sites, d, d]``.
    """
    cores, exponent = [core.double() for core in sites], 0
    for side in (range(out_site), range(len(cores) - 1, out_site - 1, -1)):
        second = torch.ones(1, 1, dtype=torch.float64)
        for i in side:
            inwards = cores[i] if i < out_site else cores[i].permute(2, 1, 0)
            weighted = torch.einsum("ldr,de->ler", inwards, grams[i])
            second = torch.einsum("ler,les->rs", weighted, torch.einsum("lk,kes->les", second, inwards))
            power = frexp(float(second.diagonal().max()) ** 0.5)[1]
            second, cores[i], exponent = second * 4.0**-power, cores[i] * 2.0**-power, exponent + power
    return cores, exponent


def scaled(values: Tensor, exponent: int) -> Tensor:
    """Return values times a power of two, in float64; 0 or infinite where that is too small or too large."""
    with np.errstate(over="ignore", under="ignore"):
        return torch.from_numpy(np.ldexp(values.double().numpy(), exponent))


def _sides(sites: Sequence[Tensor], out_site: int, measure: Moments) -> tuple[Steps, Steps, int]:
    """Return the rescaled matrices of both sides, and the exponent that they lack."""
    mean, covariance = measure.mean.double(), measure.covariance.double()
    if mean.shape != (len(sites), sites[0].shape[1]):
        raise ConfigError(
            f"the measure has moments of {mean.shape[0]} sites with {mean.shape[1]} features, "
            f"the chain has {len(sites)} with {sites[0].shape[1]}"
        )
    cores, exponent = rescaled(sites, out_site, covariance + mean[:, :, None] * mean[:, None])
    values, directions = torch.linalg.eigh(covariance)
    # Directions without variance at any site, such as that of the constant feature, cost time and add nothing.
    has_variance = (values > NEGLIGIBLE * values.max()).any(0)
    spread = directions[:, :, has_variance] * values[:, None, has_variance].clamp_min(0).sqrt()
    steps = [
        (torch.einsum("ldr,d->lr", core, mean[i]), torch.einsum("ldr,dj->jlr", core, spread[i]))
        for i, core in enumerate(cores)
    ]
    return steps[:out_site], [(mean.mT, deviation.mT) for mean, deviation in reversed(steps[out_site:])], exponent


def _means(steps: Steps) -> list[Tensor]:
    """Return the mean state ``[bond]`` before every site of a side and next to the output."""
    states = [torch.ones(1, dtype=torch.float64)]
    for mean, _ in steps:
        states.append(states[-1] @ mean)
    return states


def _state_moments(steps: Steps) -> list[State]:
    """Return mean and covariance of the state before every site of a side and next to the output."""
    covariance = torch.zeros(1, 1, dtype=torch.float64)
    states = _means(steps)
    moments = [(states[0], covariance)]
    for (mean, spread), state, after in zip(steps, states, states[1:], strict=False):
        second = covariance + torch.outer(state, state)
        covariance = mean.T @ covariance @ mean + (spread.mT @ second @ spread).sum(0)
        moments.append((after, covariance))
    return moments


def _seen(centre: Tensor, left: State, right: State) -> tuple[State, State]:
    """Return the moments of what each side is multiplied with at the output core.

    That is linear in the state of the other side, whose mean and covariance are ``left`` and ``right``.

    Returns:
        Mean ``[outputs, bond]`` and covariance ``[outputs, bond, bond]``, for the left and for the right side.
    """
    by_output = centre.transpose(0, 1)  # [outputs, left, right]
    return (
        (by_output @ right[0], by_output @ right[1] @ by_output.mT),
        (left[0] @ by_output, by_output.mT @ left[1] @ by_output),
    )


def _variance(left: State, right: State, from_left: State, from_right: State) -> Tensor:
    """Return the variance of every output: that of the left side alone, of the right side alone, and of both."""
    return (
        torch.einsum("ol,lk,ok->o", from_left[0], left[1], from_left[0])
        + torch.einsum("or,rs,os->o", from_right[0], right[1], from_right[0])
        + torch.einsum("olk,lk->o", from_left[1], left[1])
    )


def _parts(steps: Steps, states: list[State], seen: State) -> tuple[Tensor, Tensor]:
    """Return the variances ``[outputs, steps]`` that each site of a side explains alone, and those it has a part in.

    Args:
        steps: Matrices of the side.
        states: Result of :func:`_state_moments`.
        seen: Moments of what the side is multiplied with at the output core.
    """
    first_order, total = [], []
    beyond, covariance = seen
    second = covariance + beyond[:, :, None] * beyond[:, None]
    for (mean, spread), (state, own) in zip(reversed(steps), reversed(states[:-1]), strict=True):
        first_order.append((beyond @ (state @ spread).T).square().sum(1))
        part = (spread @ second[:, None] @ spread.mT).sum(1)
        total.append((part * (own + torch.outer(state, state))).sum((1, 2)))
        second = mean @ second @ mean.T + part
        beyond = beyond @ mean.T
    empty = beyond.new_zeros(len(beyond), 0)
    return (
        torch.stack(first_order[::-1], 1) if first_order else empty,
        torch.stack(total[::-1], 1) if total else empty,
    )


def _pairs_of_side(steps: Steps, chosen: list[int], beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deviations next to the output that each chosen site makes, and what pairs of them explain together.

    Args:
        steps: Matrices of the side.
        chosen: Indices of steps, increasing.
        beyond: Mean of what the side is multiplied with at the output core ``[outputs, bond]``.

    Returns:
        Deviations ``[chosen, directions, bond]``, and variances ``[outputs, chosen, chosen]`` above the diagonal: the
        first site of a pair is farther out.
    """
    seen = [beyond]
    for mean, _ in reversed(steps):
        seen.append(seen[-1] @ mean.T)
    after, states = seen[-2::-1], _means(steps)
    pairs = beyond.new_zeros(len(beyond), len(chosen), len(chosen))
    rows = beyond.new_zeros(0, steps[0][1].shape[0] if steps else 1, 1)
    for step, (mean, spread) in enumerate(steps):
        if step in chosen:
            direction = torch.einsum("jlr,or->ojl", spread, after[step])
            variances = torch.einsum("kil,ojl->okij", rows, direction).square().sum((2, 3))
            pairs[:, : len(rows), len(rows)] = variances
            rows = torch.cat([rows @ mean, (states[step] @ spread)[None]])
        else:
            rows = rows @ mean
    return rows, pairs
