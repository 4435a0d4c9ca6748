"""Variance of a chain under a product measure, divided among its inputs, exactly and without samples of inputs.

If the inputs are independent, a function is a sum of one part for each set of inputs, and the parts are uncorrelated
(Sobol 1993). A chain needs only two moments of the features of each site for the variance of every part: in

    E[phi phi'] = covariance + mean mean'

a site at which the chain is squared with the covariance is one that the part depends on, one at which it is contracted
with the mean is one that it does not depend on. All variances are sums of squares, so that nothing cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.checks import integer
from kdzoo.errors import ConfigError

NEGLIGIBLE = 1e-13
"""Share of the largest variance of a feature that counts as none."""


@dataclass(frozen=True)
class Moments:
    """First two moments of the features of every site under a product measure, in float64.

    Attributes:
        mean: (sites, d).
        covariance: (sites, d, d).
    """

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Sobol:
    """How the variance of each output is divided among the inputs.

    Attributes:
        mean: of every output (outputs).
        variance: of every output (outputs).
        first: share of the variance that an input explains by itself (outputs, sites).
        total: share that it has a part in, which is lost if it is fixed (outputs, sites). Shares of an output without
            variance are 0.

    References:
        Sobol: Sensitivity estimates for nonlinear mathematical models. Math. Model. Comput. Exp. 1, 1993.
        Homma, Saltelli: Importance measures in global sensitivity analysis. Reliab. Eng. Syst. Saf. 52, 1996.
    """

    mean: Tensor
    variance: Tensor
    first: Tensor
    total: Tensor


def moments(phi: Tensor) -> Moments:
    """Return the moments of features (sites, d, samples): the product of the sites' observed distributions."""
    phi = phi.double()
    mean = phi.mean(2)
    centred = phi - mean[..., None]
    return Moments(mean, centred @ centred.mT / phi.shape[2])


def sobol_indices(sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments) -> Sobol:
    """Return mean, variance, first-order and total Sobol index of every site for every output.

    It takes O(sites d D^3 outputs) operations for bonds D.

    Args:
        sites: cores (n_left, d, n_right) from the left end; open boundaries.
        centre: output core (left, outputs, right).
        out_site: site before which it is.
        measure: of the inputs.

    Raises:
        ConfigError: the measure has another number of sites or features.
    """
    sites, centre, exponent = balanced(sites, centre, out_site, measure)
    spreads = _spreads(measure)
    left = _sweep(sites[:out_site], measure.mean[:out_site], spreads[:out_site])
    mirrored = _mirrored(sites[out_site:])
    right = _sweep(mirrored, measure.mean[out_site:].flip(0), spreads[out_site:].flip(0))
    (l_mean, l_cov), (r_mean, r_cov) = left[-1], right[-1]
    seen_left = torch.einsum("l,lor->or", l_mean, centre)  # the left side replaced by its mean
    seen_right = torch.einsum("lor,r->ol", centre, r_mean)
    mean = seen_left @ r_mean
    variance = _form(seen_left, r_cov) + _form(seen_right, l_cov) + _both(centre, l_cov, r_cov)
    second_right = torch.einsum("lor,rs,kos->olk", centre, r_cov, centre) + _outer(seen_right)
    second_left = torch.einsum("lor,lk,kos->ors", centre, l_cov, centre) + _outer(seen_left)
    parts = [
        _parts(sites[:out_site], left, measure.mean[:out_site], spreads[:out_site], (seen_right, second_right)),
        _parts(mirrored, right, measure.mean[out_site:].flip(0), spreads[out_site:].flip(0), (seen_left, second_left)),
    ]
    alone, involved = (torch.cat([parts[0][i], parts[1][i].flip(1)], 1) for i in (0, 1))
    shares = variance.where(variance > 0, torch.inf)[:, None]
    return Sobol(_power(mean, exponent), _power(variance, 2 * exponent), alone / shares, involved / shares)


def pairwise_indices(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments, among: Sequence[int] | None = None
) -> Tensor:
    """Return the share of the variance that two inputs explain together beyond what each explains by itself.

    It takes O(sites k d D^2 outputs) operations for k sites.

    Args:
        sites: cores (n_left, d, n_right) from the left end; open boundaries.
        centre: output core (left, outputs, right).
        out_site: site before which it is.
        measure: of the inputs.
        among: sites of which all pairs are taken; None for all.

    Returns:
        Second-order Sobol indices (outputs, k, k), symmetric with a diagonal of 0, in the order of ``among``.

    Raises:
        ConfigError: the measure has another number of sites or features, or a site is not in the chain or named twice.
    """
    n = len(sites)
    chosen = range(n) if among is None else [integer("a site of among", one, least=0, most=n - 1) for one in among]
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"among must name a site once, got {list(chosen)}")
    variance = sobol_indices(sites, centre, out_site, measure).variance
    exponent_free, centre, exponent = balanced(sites, centre, out_site, measure)
    del sites
    spreads, mean = _spreads(measure), measure.mean
    at = [sorted(one for one in chosen if one < out_site), sorted((one for one in chosen if one >= out_site))[::-1]]
    left_cores, right_cores = exponent_free[:out_site], _mirrored(exponent_free[out_site:])
    left = _deviations(left_cores, mean[:out_site], spreads[:out_site], at[0])
    right_at = [n - 1 - one for one in at[1]]
    right = _deviations(right_cores, mean[out_site:].flip(0), spreads[out_site:].flip(0), right_at)
    return _assembled(chosen, at, left, right, centre, variance, exponent)
