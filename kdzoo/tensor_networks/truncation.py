"""Smaller bonds: truncation that cuts what matters least under a product measure, or under data.

The singular values of the coefficients of a chain say little about the function if the features are not an orthonormal
basis: for [1, x] the weight of a pixel and the constant are far from orthogonal, and cutting bonds of 16 to 8 then
costs 3 to 8 points of accuracy. Written in features psi = T phi with E[psi psi'] = 1, the norm of the coefficients is
the norm of the function, so the decomposition cuts the least of the function.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.features import whitening_matrices
from kdzoo.tensor_networks.network import canonical_form, check_open, spectra, split_svd, tensor_row

# Singular values of roots of second moments below this share of the largest are rounding: the moments are known to
# about 1e-15 of the largest, and their roots therefore to the square root of that.
RANK = 1e-7


def truncate(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    *,
    grams: Tensor | None = None,
    bond_dim: int | None = None,
    max_error: float | None = None,
) -> tuple[list[Tensor], Tensor, float]:
    """Return a chain g with smaller bonds, and its relative error ||g - f|| / ||f|| under the product measure.

    From each end towards the output, every bond is cut by a singular value decomposition of the canonical form. On
    either side these are orthogonal projections, each onto a part of what the one before has left, so that the squared
    error is exactly the sum of the squares of the singular values that were cut. For ``max_error`` the smallest
    singular values of all bonds together are cut, and more where that has left something over.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        grams: Mean products ``[sites, d, d]`` of the features under the measure. None: unit matrices, for which the
            error is that of the coefficients. What the measure does not see, such as the weight of a pixel that never
            changes, is removed.
        bond_dim: Largest bond, >= 1. None: as large as needed.
        max_error: Largest error, in [0, 1). None: any. ``bond_dim`` takes precedence where it is too small for it.

    Returns:
        The cores, the output core and the relative error.

    Raises:
        ConfigError: An argument is outside its range, both limits are None, or the chain is periodic.
        NonFiniteLossError: A decomposition fails or overflows.

    References:
        Oseledets: Tensor-train decomposition. SIAM J. Sci. Comput. 33, 2011, theorem 2.2 and algorithm 2.
    """
    if bond_dim is None and max_error is None:
        raise ConfigError("truncate needs a limit: bond_dim, max_error or both; got None for both")
    limit = None if bond_dim is None else validation.integer("bond_dim", bond_dim)
    share = math.inf if max_error is None else validation.probability("max_error", max_error) ** 2
    check_open(sites, centre, out_site, "a truncation")
    if grams is None:
        return _truncate(sites, centre, out_site, limit, share)
    if tuple(grams.shape) != (expected := (len(sites), sites[0].shape[1], sites[0].shape[1])):
        raise ConfigError(f"grams must be of shape {expected}, got {tuple(grams.shape)}")
    whiten, unwhiten = whitened_legs(grams)
    white = [torch.einsum("lkr,kj->ljr", core, matrix) for core, matrix in zip(sites, unwhiten, strict=True)]
    white, centre, error = _truncate(white, centre, out_site, limit, share)
    cores = [torch.einsum("ljr,jk->lkr", core, matrix) for core, matrix in zip(white, whiten, strict=True)]
    return cores, centre, error


def _truncate(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, limit: int | None, share: float
) -> tuple[list[Tensor], Tensor, float]:
    """Truncate a chain in orthonormal features.

    Args:
        sites: Core ``[left, d, right]`` of every site.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        limit: Largest bond, or None.
        share: Largest squared error, relative to the squared norm; infinite if there is no limit.
    """
    sites, centre = canonical_form(sites, centre, out_site)
    squared_norm = float(centre.square().sum())
    budget = share * squared_norm if squared_norm else 0.0  # 0 times infinity is NaN
    chain = tensor_row(sites, centre, out_site)
    planned = _planned(chain, out_site, budget)
    chain, left = _cut(chain, planned[:out_site], budget - sum(planned[out_site:]), limit)
    # The right side starts with what the left side has really spent.
    chain, right = _cut(_mirrored(chain), planned[out_site:][::-1], budget - left, limit)
    sites, centre = _parted(_mirrored(chain), out_site)
    return sites, centre, ((left + right) / squared_norm) ** 0.5 if squared_norm else 0.0


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
    linear systems. Unlike the truncation under a product measure it sees correlations, and its error has no bound.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        left: Second moment ``[bond, bond]`` of the state to the left of every bond; see :func:`state_moments`.
        right: The same of the state to its right.
        bond_dim: Largest bond, >= 1.

    Raises:
        ConfigError: ``bond_dim`` is outside its range, or the chain is periodic.
        NonFiniteLossError: A moment is not finite.

    References:
        Moore: Principal component analysis in linear systems. IEEE Trans. Automatic Control 26, 1981.
    """
    most = validation.integer("bond_dim", bond_dim)
    check_open(sites, centre, out_site, "a truncation")
    if not all(bool(moment.isfinite().all()) for moment in (*left, *right)):
        raise NonFiniteLossError("the truncation of a chain failed, and nothing was changed: a moment is not finite")
    chain = tensor_row(sites, centre, out_site)
    for i, (left_moment, right_moment) in enumerate(zip(left, right, strict=True)):
        left_root, right_root = _root(left_moment), _root(right_moment)
        u, values, v = torch.linalg.svd(left_root.T @ right_root, full_matrices=False)
        rank = min(most, int((values > RANK * values[0]).sum())) or 1  # a chain of zeros keeps one direction
        scale = values[:rank].clamp_min(torch.finfo(values.dtype).tiny).rsqrt()
        chain[i] = chain[i] @ (right_root @ v[:rank].T * scale)
        chain[i + 1] = torch.tensordot((left_root @ u[:, :rank] * scale).T, chain[i + 1], 1)
    return _parted(chain, out_site)


def state_moments(
    sites: Sequence[Tensor], centre: Tensor, out_site: int, phi: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the second moments ``[bond, bond]`` of the states to the left and to the right of every bond over samples.

    On the side where the output is, the moments are summed over outputs. Each is known up to a factor, which does not
    matter for :func:`balanced`: states are rescaled, all samples alike, so that long chains do not overflow.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        phi: Features ``[sites, d, samples]`` in the chain's order, float64.
    """
    check_open(sites, centre, out_site, "a truncation")
    chain = tensor_row(sites, centre, out_site)
    legs: list[Tensor | None] = [*phi[:out_site], None, *phi[out_site:]]
    left = _moments(chain, legs)
    return left, _moments(_mirrored(chain), legs[::-1])[::-1]


def _planned(chain: Sequence[Tensor], out_site: int, budget: float) -> list[float]:
    """Return for each bond the sum of squares that is cut if the smallest singular values of all bonds are.

    Args:
        chain: All tensors.
        out_site: Which of them is the output core.
        budget: Largest sum of squares of all that is cut. Infinite: nothing is planned, as ``bond_dim`` alone decides.
    """
    if not math.isfinite(budget):
        return [0.0] * (len(chain) - 1)
    spare = [values[1:].square() for values in spectra(*_parted(chain, out_site), out_site)]  # the largest stays
    bonds = torch.cat([torch.full((len(squares),), i) for i, squares in enumerate(spare)]).to(chain[0].device)
    weights, order = torch.cat(spare).sort()
    cut = weights.cumsum(0) <= budget
    sums: list[float] = weights.new_zeros(len(spare)).index_add(0, bonds[order[cut]], weights[cut]).tolist()
    return sums


def _cut(
    chain: Sequence[Tensor], planned: Sequence[float], budget: float, most: int | None
) -> tuple[list[Tensor], float]:
    """Cut the first bonds of a row of tensors, from its left end; return it and the sum of squares that was cut.

    Args:
        chain: All tensors.
        planned: Sum of squares to cut at each of the bonds. The bonds share what they cut, so that less is needed at
            some of them than planned; later bonds may cut that as well.
        budget: Largest sum of squares of all that is cut.
        most: Largest bond.
    """
    rest, current = canonical_form(chain[1:], chain[0], 0)  # the norm is in the first tensor
    done: list[Tensor] = []
    spent = 0.0
    for i, core in enumerate(rest[: len(planned)]):
        size, share = float(current.square().sum()), max(budget - spent - sum(planned[i + 1 :]), 0.0)
        max_error = (share / size) ** 0.5 if math.isfinite(share) and size else None
        left, right, values, weight = split_svd(current, most, max_error)
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
    """Return matrices T ``[sites, d, d]`` with T G T' = 1 and their inverses, both 0 for what the measure does not see.

    Args:
        grams: Mean products G ``[sites, d, d]`` of the features.
    """
    whiten = whitening_matrices(grams)
    unwhiten = torch.linalg.solve_triangular(whiten, torch.eye(grams.shape[-1]).to(grams), upper=False)
    # The diagonal of T G T' is 1 for a direction with variance and 0 for one without.
    is_seen = (whiten @ grams @ whiten.mT).diagonal(dim1=1, dim2=2) > 0.5
    return whiten * is_seen[:, :, None], unwhiten * is_seen[:, None, :]


def _root(moment: Tensor) -> Tensor:
    """Return L with L L' = the moment."""
    values, vectors = torch.linalg.eigh(moment)
    return vectors * values.clamp_min(0).sqrt()


def _moments(chain: Sequence[Tensor], legs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the second moments of the states to the left of every bond; a leg without features is the output."""
    samples = next(phi.shape[1] for phi in legs if phi is not None)
    state = chain[0].new_ones(samples, 1, 1)  # [samples, 1 or outputs, bond]
    moments = []
    for core, phi in zip(chain[:-1], legs, strict=False):
        if phi is None:
            state = torch.einsum("sxl,lor->sor", state, core)
        else:
            state = torch.einsum("sol,ks,lkr->sor", state, phi, core)
        state = state / state.abs().amax().clamp_min(torch.finfo(state.dtype).tiny)
        flat = state.flatten(0, 1)
        moments.append(flat.T @ flat / samples)
    return moments
