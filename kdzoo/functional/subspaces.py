"""Angles between subspaces, which compare what two sets of directions span, whatever the directions themselves are."""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.precision import widen
from kdzoo.functional.loss_arguments import check_floating


def principal_angles(first: Float[Tensor, "d k"], second: Float[Tensor, "d m"]) -> Float[Tensor, " angles"]:
    r"""Principal angles between the spans of two sets of columns, in radians, the smallest first.

    .. math:: \cos\theta_j = \sigma_j(Q_1^\top Q_2), \qquad \sin\theta_j = \sigma_j\big((1 - Q_1 Q_1^\top) Q_2\big)

    with orthonormal bases Q of both spans and singular values :math:`\sigma_j`. The angles are all 0 if one span lies
    in the other, and pi/2 if they are orthogonal. An angle below 45 degrees is computed from its sine, since the cosine
    of a small one is rounded to 1.

    Args:
        first: Linearly independent columns.
        second: Others, of the same length.

    Returns:
        min(k, m) angles in [0, pi/2].

    Raises:
        ValueError: If the columns differ in length, or there are more columns than a space of this length has
            dimensions.

    Example:
        >>> import torch
        >>> principal_angles(torch.eye(3)[:, :1], torch.tensor([[1.0], [1.0], [0.0]])).rad2deg()
        tensor([45.0000], dtype=torch.float64)

    References:
        Bjorck, Golub: Numerical methods for computing angles between linear subspaces. Mathematics of Computation 27,
        1973.
    """
    check_floating("first", first)
    check_floating("second", second)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"columns must have one length, got {tuple(first.shape)} and {tuple(second.shape)}")
    if max(first.shape[1], second.shape[1]) > len(first):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"at most {len(first)} columns can be independent, got {shapes}")
    # The sines need the larger space as the first one.
    larger, smaller = (first, second) if first.shape[1] >= second.shape[1] else (second, first)
    larger_basis, smaller_basis = (torch.linalg.qr(widen(columns))[0] for columns in (larger, smaller))
    common = larger_basis.T @ smaller_basis
    cosines = torch.linalg.svdvals(common).clamp(0, 1)  # descending
    sines = torch.linalg.svdvals(smaller_basis - larger_basis @ common).flip(0).clamp(0, 1)  # ascending
    return torch.where(cosines.square() > 0.5, sines.asin(), cosines.acos())
