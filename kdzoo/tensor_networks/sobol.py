"""Variance of a chain under a product measure, divided among its inputs, exactly and without samples of inputs.

If the inputs are independent, a function is a sum of one part for each set of inputs, and the parts are uncorrelated
(Sobol 1993). Of a chain the variance of every part follows from two moments of the features of each site,

    E[phi phi'] = mean mean' + covariance

A part depends on the sites where the chain is squared with the covariance, and not on those where it is contracted with
the mean. In legs whose first feature is 1 and whose others are orthonormal, the former are all features but the first.
Every variance is a sum of squares: nothing cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp

import numpy as np
import torch
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError

NEGLIGIBLE = 1e-14
"""Share of the largest variance of a feature that counts as none."""

Steps = list[tuple[Tensor, Tensor]]
"""Matrices of the sites of one side, from its outer end: the mean ``[n_in, n_out]`` and, for each independent direction of
variance 1, the deviation ``[directions, n_in, n_out]``."""
State = tuple[Tensor, Tensor]
"""Mean and covariance of a vector."""


@dataclass(frozen=True)
class Moments:
    """First two moments of the features of every site under a product measure, in float64.

    Attributes:
        mean: ``[sites, d]``.
        covariance: Symmetric and not negative ``[sites, d, d]``.
    """

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Sobol:
    """How the variance of each output is divided among the inputs.

    Attributes:
        mean: ``[outputs]``.
        variance: ``[outputs]``.
        first: Share of the variance that an input explains by itself ``[outputs, sites]``.
        total: Share of the variance in which an input has a part, by itself or together with others ``[outputs, sites]``.

    The shares of an output without variance are 0.

    References:
        Sobol: Sensitivity estimates for nonlinear mathematical models. Math. Model. Comput. Exp. 1, 1993.
        Homma, Saltelli: Importance measures in global sensitivity analysis. Reliab. Eng. Syst. Saf. 52, 1996.
    """

    mean: Tensor
    variance: Tensor
    first: Tensor
    total: Tensor


def feature_moments(phi: Tensor) -> Moments:
    """Return the moments of features ``[sites, d, samples]``: the product measure of the sites' observed distributions."""
    phi = phi.double()
    shifted = phi - phi[..., :1]  # so that what never changes has no variance at all
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
        torch.cat([ours, theirs.flip(1)], 1) / variance.where(variance > 0, torch.inf)[:, None]
        for ours, theirs in zip(on_left, on_right, strict=True)
    ]
    mean = from_left[0] @ before[-1][0]
    return Sobol(scaled(mean, exponent), scaled(variance, 2 * exponent), *shares)


def pairwise_indices(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments, among: Sequence[int] | None = None
) -> Tensor:
    """Return the share of the variance that two inputs explain together beyond what each explains by itself.

    It takes O(sites k d D^2 outputs) operations for k sites, besides those of :func:`sobol_indices`.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        measure: Moments of the features.
        among: Sites of which all pairs are taken; None for all.

    Returns:
        Second-order Sobol indices ``[outputs, k, k]``, symmetric, in the order of ``among``; 0 on the diagonal.

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
    ours, theirs = sorted(i for i in chosen if i < out_site), sorted(last - i for i in chosen if i >= out_site)
    l_rows, within_left = _pairs_of_side(left, ours, from_left[0])
    r_rows, within_right = _pairs_of_side(right, theirs, from_right[0])
    across = [
        torch.einsum("kil,lr,mjr->kimj", l_rows, centre[:, o], r_rows).square().sum((1, 3))
        for o in range(centre.shape[1])
    ]
    n = len(ours)
    found = torch.zeros(centre.shape[1], len(chosen), len(chosen), dtype=torch.float64)
    found[:, :n, :n], found[:, :n, n:], found[:, n:, n:] = within_left, torch.stack(across), within_right
    found = found + found.mT
    place = {site: i for i, site in enumerate([*ours, *(last - i for i in theirs)])}
    at = torch.tensor([place[site] for site in chosen], dtype=torch.long)
    return found[:, at][:, :, at] / variance.where(variance > 0, torch.inf)[:, None, None]


def rescaled(sites: Sequence[Tensor], out_site: int, grams: Tensor) -> tuple[list[Tensor], int]:
    """Return cores times powers of two, which make the states at every bond about 1, and the exponent that they lack.

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
    kept = (values > NEGLIGIBLE * values.max()).any(0)
    spread = directions[:, :, kept] * values[:, None, kept].clamp_min(0).sqrt()
    steps = [
        (torch.einsum("ldr,d->lr", core, mean[i]), torch.einsum("ldr,dj->jlr", core, spread[i]))
        for i, core in enumerate(cores)
    ]
    return steps[:out_site], [(one.mT, other.mT) for one, other in reversed(steps[out_site:])], exponent


def _means(steps: Steps) -> list[Tensor]:
    """Return the mean state ``[bond]`` before every site of a side and beside the output."""
    states = [torch.ones(1, dtype=torch.float64)]
    for mean, _ in steps:
        states.append(states[-1] @ mean)
    return states


def _state_moments(steps: Steps) -> list[State]:
    """Return mean and covariance of the state before every site of a side and beside the output."""
    covariance = torch.zeros(1, 1, dtype=torch.float64)
    states = _means(steps)
    found = [(states[0], covariance)]
    for (mean, spread), state, after in zip(steps, states, states[1:], strict=False):
        second = covariance + torch.outer(state, state)
        covariance = mean.T @ covariance @ mean + (spread.mT @ second @ spread).sum(0)
        found.append((after, covariance))
    return found


def _seen(centre: Tensor, left: State, right: State) -> tuple[State, State]:
    """Return mean ``[outputs, bond]`` and covariance ``[outputs, bond, bond]`` of what each side meets at the output core.

    It is linear in the state of the other side, of which ``left`` and ``right`` are mean and covariance.
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
    """Return the variances that each site of a side explains alone, and has a part in: ``[outputs, steps]`` both.

    Args:
        steps: Of the side.
        states: Of :func:`_state_moments`.
        seen: What the side meets at the output core.
    """
    alone, involved = [], []
    beyond, covariance = seen
    second = covariance + beyond[:, :, None] * beyond[:, None]
    for (mean, spread), (state, own) in zip(reversed(steps), reversed(states[:-1]), strict=True):
        alone.append((beyond @ (state @ spread).T).square().sum(1))
        part = (spread @ second[:, None] @ spread.mT).sum(1)
        involved.append((part * (own + torch.outer(state, state))).sum((1, 2)))
        second = mean @ second @ mean.T + part
        beyond = beyond @ mean.T
    empty = beyond.new_zeros(len(beyond), 0)
    return (
        torch.stack(alone[::-1], 1) if alone else empty,
        torch.stack(involved[::-1], 1) if involved else empty,
    )


def _pairs_of_side(steps: Steps, chosen: list[int], beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deviations beside the output that each chosen site makes, and what pairs of them explain together.

    Args:
        steps: Of the side.
        chosen: Numbers of steps, increasing.
        beyond: Mean of what the side meets at the output core ``[outputs, bond]``.

    Returns:
        ``[chosen, directions, bond]`` and ``[outputs, chosen, chosen]``, the first site of a pair farther out.
    """
    seen = [beyond]
    for mean, _ in reversed(steps):
        seen.append(seen[-1] @ mean.T)
    after, states = seen[-2::-1], _means(steps)
    pairs = beyond.new_zeros(len(beyond), len(chosen), len(chosen))
    rows = beyond.new_zeros(0, steps[0][1].shape[0] if steps else 1, 1)
    for step, (mean, spread) in enumerate(steps):
        if step in chosen:
            now = torch.einsum("jlr,or->ojl", spread, after[step])
            made = torch.einsum("kil,ojl->okij", rows, now).square().sum((2, 3))
            pairs[:, : len(rows), len(rows)] = made
            rows = torch.cat([rows @ mean, (states[step] @ spread)[None]])
        else:
            rows = rows @ mean
    return rows, pairs
