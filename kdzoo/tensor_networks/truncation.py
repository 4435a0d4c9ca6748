"""Smaller bonds: truncation that cuts what matters least under a product measure, or under data.

The singular values of a chain's coefficients say little about the function when the features are no orthonormal basis:
for [1, x] a pixel's weight and the constant are far from orthogonal. Written in features psi = T phi with E[psi psi'] =
1, the norm of the coefficients is the norm of the function, so the decomposition cuts the least of the function.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.features import whitening_matrices
from kdzoo.tensor_networks.network import canonical_form, check_open, spectra, split_svd, tensor_row

RANK = 1e-7
"""Singular values of roots of second moments below this share of the largest are rounding."""


def truncate(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    *,
    grams: Tensor | None = None,
    bond_dim: int | None = None,
    max_error: float | None = None,
) -> tuple[list[Tensor], Tensor, float]:
    """Return a chain g with smaller bonds, and its error ||g - f|| / ||f|| under the product measure.

    From each end towards the output, every bond is cut by a singular value decomposition of the canonical form. On
    either side these are orthogonal projections, each onto a part of what the one before has left, so that the squared
    error is exactly the sum of the squares of the singular values that were cut. For ``max_error`` those that are
    the smallest of all bonds are cut, and more where that has left something over.

    Args:
        sites: cores (n_left, d, n_right) of an open chain, float64.
        centre: output core (left, outputs, right).
        out_site: the output core is before this site.
        grams: mean products (sites, d, d) of the features under the measure; None: unit matrices, by which the error
            is that of the coefficients. What the measure does not see, such as the weight of a pixel that never
            changes, is taken out.
        bond_dim: largest bond, >= 1; None: as large as needed.
        max_error: largest error, in [0, 1); None: any. A bond_dim that is too small for it counts more.

    Raises:
        ConfigError: an argument is out of its range, both limits are None, or the chain is periodic.
        NonFiniteLossError: a decomposition fails or overflows.

    References:
        Oseledets: Tensor-train decomposition. SIAM J. Sci. Comput. 33, 2011, theorem 2.2 and algorithm 2.
    """
    if bond_dim is None and max_error is None:
        raise ConfigError("truncate needs a limit: bond_dim, max_error or both; got None for both")
    most = None if bond_dim is None else validation.integer("bond_dim", bond_dim)
    share = math.inf if max_error is None else validation.probability("max_error", max_error) ** 2
    check_open(sites, centre, out_site, "a truncation")
    if grams is not None:
        if tuple(grams.shape) != (expected := (len(sites), sites[0].shape[1], sites[0].shape[1])):
            raise ConfigError(f"grams must be of shape {expected}, got {tuple(grams.shape)}")
        turn, back = whitened_legs(grams)
        sites = [torch.einsum("lkr,kj->ljr", core, one) for core, one in zip(sites, back, strict=True)]
    sites, centre = canonical_form(sites, centre, out_site)
    whole = float(centre.square().sum())
    budget = share * whole if whole else 0.0
    chain = tensor_row(sites, centre, out_site)
    planned = _planned(chain, out_site, budget)
    chain, left = _cut(chain, planned[:out_site], budget - sum(planned[out_site:]), most)
    chain, right = _cut(_mirrored(chain), planned[out_site:][::-1], budget - left, most)
    sites, centre = _parted(_mirrored(chain), out_site)
    if grams is not None:
        sites = [torch.einsum("ljr,jk->lkr", core, one) for core, one in zip(sites, turn, strict=True)]
    return sites, centre, ((left + right) / whole) ** 0.5 if whole else 0.0


def balanced_truncation(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    left: Sequence[Tensor],
    right: Sequence[Tensor],
    bond_dim: int,
) -> tuple[list[Tensor], Tensor]:
    """Return a chain with smaller bonds that keeps the directions which matter for given data.

    At a bond, f = l . r with a state on either side. With the second moments C_l = L L' and C_r = R R' and L'R = U S V'
    the bond is projected onto R V_k S_k^-1 U_k' L' (of the k largest singular values), as in the balanced truncation of
    linear systems. Unlike the truncation under a product measure it sees correlations, and it has no bound.

    Args:
        sites: cores (n_left, d, n_right) of an open chain, float64.
        centre: output core (left, outputs, right).
        out_site: the output core is before this site.
        left: second moment (bond, bond) of the state to the left of every bond; see :func:`moments`.
        right: the same of the state to its right.
        bond_dim: largest bond, >= 1.

    Raises:
        ConfigError: bond_dim is out of its range, or the chain is periodic.
        NonFiniteLossError: a moment is not finite.

    References:
        Moore: Principal component analysis in linear systems. IEEE Trans. Automatic Control 26, 1981.
    """
    most = validation.integer("bond_dim", bond_dim)
    check_open(sites, centre, out_site, "a truncation")
    if not all(bool(moment.isfinite().all()) for moment in (*left, *right)):
        raise NonFiniteLossError("the truncation of a chain failed, and nothing was changed: a moment is not finite")
    chain = tensor_row(sites, centre, out_site)
    for i, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        one, other = _root(ours), _root(theirs)
        u, values, v = torch.linalg.svd(one.T @ other, full_matrices=False)
        kept = min(most, int((values > RANK * values[0]).sum())) or 1
        scale = values[:kept].clamp_min(torch.finfo(values.dtype).tiny).rsqrt()
        chain[i] = chain[i] @ (other @ v[:kept].T * scale)
        chain[i + 1] = torch.tensordot((one @ u[:, :kept] * scale).T, chain[i + 1], 1)
    return _parted(chain, out_site)


def state_moments(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, phi: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the second moments (bond, bond) of the states to the left and to the right of every bond over samples.

    On the side where the output is, the moments are summed over outputs. Each is known up to a factor, which does not
    matter for :func:`balanced`: states are rescaled, all samples alike, so that long chains do not overflow.

    Args:
        sites: cores (n_left, d, n_right) of an open chain, float64.
        centre: output core (left, outputs, right).
        out_site: the output core is before this site.
        phi: features (sites, d, samples) in the chain's order, float64.
    """
    check_open(sites, centre, out_site, "a truncation")
    chain = tensor_row(sites, centre, out_site)
    legs: list[Tensor | None] = [*phi[:out_site], None, *phi[out_site:]]
    left = _moments(chain, legs)
    return left, _moments(_mirrored(chain), legs[::-1])[::-1]


def _planned(chain: Sequence[Tensor], out_site: int, budget: float) -> list[float]:
    """Return for each bond the sum of squares that is cut if the smallest singular values of all bonds are.

    Args:
        chain: all tensors.
        out_site: which of them is the output core.
        budget: largest sum of squares of all that is cut; infinite: nothing is planned.
    """
    if not math.isfinite(budget):
        return [0.0] * (len(chain) - 1)
    spare = [one[1:].square() for one in spectra(*_parted(chain, out_site), out_site)]  # the largest stays
    bonds = torch.cat([torch.full((len(one),), i) for i, one in enumerate(spare)]).to(chain[0].device)
    weights, order = torch.cat(spare).sort()
    cut = weights.cumsum(0) <= budget
    sums: list[float] = weights.new_zeros(len(spare)).index_add(0, bonds[order[cut]], weights[cut]).tolist()
    return sums


def _cut(
    chain: Sequence[Tensor], planned: Sequence[float], budget: float, most: int | None
) -> tuple[list[Tensor], float]:
    """Cut the first bonds of a row of tensors, from its left end; return it and the sum of squares that was cut.

    Args:
        chain: all tensors.
        planned: sum of squares to cut at each of the bonds. What was planned for the bonds before and not needed, since
            they share what they cut, may be cut too.
        budget: largest sum of squares of all that is cut.
        most: largest bond.
    """
    rest, current = canonical_form(chain[1:], chain[0], 0)
    done: list[Tensor] = []
    spent = 0.0
    for i, core in enumerate(rest[: len(planned)]):
        size, share = float(current.square().sum()), max(budget - spent - sum(planned[i + 1 :]), 0.0)
        limit = (share / size) ** 0.5 if math.isfinite(share) and size else None
        left, right, values, weight = split_svd(current, most, limit)
        done.append(left)
        spent += weight
        current = torch.tensordot(values[:, None] * right, core, 1)
    return [*done, current, *rest[len(planned) :]], spent


def _parted(chain: Sequence[Tensor], out_site: int) -> tuple[list[Tensor], Tensor]:
    """Return the sites of a row of tensors, and its output core."""
    return [*chain[:out_site], *chain[out_site + 1 :]], chain[out_site]


def _mirrored(chain: Sequence[Tensor]) -> list[Tensor]:
    """Return the row of tensors read from its right end."""
    return [core.transpose(0, 2) for core in reversed(chain)]


def whitened_legs(grams: Tensor) -> tuple[Tensor, Tensor]:
    """Return T (sites, d, d) with T G T' = 1 and its inverse, both 0 for what the measure does not see."""
    turn = whitening_matrices(grams)
    back = torch.linalg.solve_triangular(turn, torch.eye(grams.shape[-1]).to(grams), upper=False)
    seen = (turn @ grams @ turn.mT).diagonal(dim1=1, dim2=2) > 0.5
    return turn * seen[:, :, None], back * seen[:, None, :]


def _root(moment: Tensor) -> Tensor:
    """Return L with L L' = the moment."""
    values, vectors = torch.linalg.eigh(moment)
    return vectors * values.clamp_min(0).sqrt()


def _moments(chain: Sequence[Tensor], legs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the second moments of the states to the left of every bond; a leg without features is the output."""
    samples = next(one.shape[1] for one in legs if one is not None)
    state = chain[0].new_ones(samples, 1, 1)  # (samples, 1 or outputs, bond)
    found = []
    for core, phi in zip(chain[:-1], legs, strict=False):
        if phi is None:
            state = torch.einsum("sxl,lor->sor", state, core)
        else:
            state = torch.einsum("sol,ks,lkr->sor", state, phi, core)
        state = state / state.abs().amax().clamp_min(torch.finfo(state.dtype).tiny)
        flat = state.flatten(0, 1)
        found.append(flat.T @ flat / samples)
    return found
