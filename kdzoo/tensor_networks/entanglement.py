"""How much the two sides of a bond share: entropies of its singular values.

The singular value decomposition at a bond writes the chain as a sum of products of a function of the left inputs and
one of the right inputs. If the features are orthonormal under a measure of the inputs (:func:`orthonormal_legs`), each
squared singular value is the share of one product in the mean square of the chain. With a single value, at an entropy
of 0, the chain is one product; in general e^entropy is about the number of products that matter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def squared_shares(values: Tensor) -> Tensor:
    """Return the shares s^2 / sum s^2 of singular values ``[bond]``, descending, in float64; zeros if all are 0."""
    values = values.double().abs().sort(descending=True).values
    largest = values.max() if len(values) else values.new_ones(())
    # Divided by the largest first: the square of a value below 1e-162 would be 0.
    squares = (values / largest.where(largest > 0, 1.0)).square()
    return squares / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)


def entropy(values: Tensor) -> float:
    """Return the entropy of singular values ``[bond]`` in nats, between 0 and the logarithm of their number.

    References:
        Schollwöck: The density-matrix renormalization group in the age of matrix product states. Ann. Phys. 326, 2011,
        eq. 26, with the natural logarithm.
    """
    return float(torch.special.entr(squared_shares(values)).sum())


def entropies(spectra: Sequence[Tensor]) -> Tensor:
    """Return the entropy of every bond in nats ``[bonds]``, in float64, from the singular values of each."""
    return torch.tensor([entropy(values) for values in spectra], dtype=torch.float64)


def orthonormal_legs(sites: Sequence[Tensor], grams: Tensor) -> list[Tensor]:
    """Return the cores of the same function for features that are orthonormal under a product measure.

    With a root G = R R' of the mean products of the features of a site, the new features are R^-1 phi and the new core
    is A R. It is 0 where the measure sees nothing, such as for the weight of a pixel that never changes.

    Args:
        sites: Core ``[left, d, right]`` of every site.
        grams: Mean products of the features ``[sites, d, d]``.
    """
    values, vectors = torch.linalg.eigh(grams.double())
    roots = vectors * values.clamp_min(0).sqrt()[:, None]  # rounding makes eigenvalues of 0 negative
    return [torch.einsum("ldr,de->ler", core.double(), root) for core, root in zip(sites, roots, strict=True)]
