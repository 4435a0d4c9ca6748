"""Chains as functions under a product measure: inner products, norms and distances without a sample.

When the inputs of all sites are independent, the expectation of a product of two chains factorises over the sites. All
that is needed of the measure is the Gram matrix G = E[phi phi'] of each site's features. From an end of the chains f
(cores A) and g (cores B), their transfer matrix E grows by one site with

    E <- sum_kl G_kl A_k' E B_l,    at a cost of O(d D^3) per site.

Gram matrices are those of data (:func:`kdzoo.tensor_networks.features.gram`; the measure is then the product of the
marginals) or of any other distribution; unit matrices give the inner product of the coefficients.

References:
    Oseledets: Tensor-train decomposition. SIAM J. Sci. Comput. 33, 2011, section 4.2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.network import check_open
from kdzoo.tensor_networks.torch_sweep import EVERY


class TensorTrain(NamedTuple):
    """The tensors of a chain.

    Attributes:
        sites: Core ``[left, d, right]`` of every site, from the left end.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
    """

    sites: Sequence[Tensor]
    centre: Tensor
    out_site: int


def inner_product(a: TensorTrain, b: TensorTrain, grams: Tensor) -> Tensor:
    """Return E[f_o g_o] of each output ``[outputs]``; their sum is the inner product.

    It is differentiable in both chains.

    Args:
        a: Open chain f.
        b: Open chain g with as many sites and outputs; its output core may be elsewhere.
        grams: Mean products ``[sites, d of a, d of b]`` of the features of every site.

    Raises:
        ConfigError: The chains do not fit each other or the measure.
    """
    check_compatible(a, b)
    expected = (len(a.sites), a.sites[0].shape[1], b.sites[0].shape[1])
    if tuple(grams.shape) != expected:
        raise ConfigError(f"grams must be of shape {expected}, got {tuple(grams.shape)}")
    # Outside of both output cores there is one transfer matrix; between them there is one for each output.
    first, last = sorted((a.out_site, b.out_site))
    left, log2 = _transfer(a.sites[:first], b.sites[:first], grams[:first])
    mirrored = [[core.transpose(0, 2) for core in reversed(chain.sites[last:])] for chain in (a, b)]
    right, more = _transfer(mirrored[0], mirrored[1], grams[last:].flip(0))
    current = left.expand(a.centre.shape[1], -1, -1)  # [outputs, bond of a, bond of b]
    for site in range(first, last + 1):
        if site == a.out_site:
            current = torch.einsum("olm,lor->orm", current, a.centre)
        if site == b.out_site:
            current = torch.einsum("olm,mor->olr", current, b.centre)
        if site < last:
            current = _step(current, a.sites[site], b.sites[site], grams[site])
    return (current * right).sum((1, 2)) * (log2 + more).exp2()


def norm(a: TensorTrain, grams: Tensor) -> Tensor:
    """Return the square root of E ||f||^2, the sum over all outputs."""
    return inner_product(a, a, grams).sum().clamp_min(0).sqrt()


def squared_distance(a: TensorTrain, b: TensorTrain, grams: Tensor) -> Tensor:
    """Return E ||f - g||^2, the sum over all outputs; differentiable in both chains.

    It is exact to rounding of the squared norms, about 1e-14 of them, and not negative.
    """
    # three inner products are cheaper than the norm of the difference, whose bonds are the sums of both
    return (inner_product(a, a, grams) - 2 * inner_product(a, b, grams) + inner_product(b, b, grams)).sum().clamp_min(0)


def _transfer(a: Sequence[Tensor], b: Sequence[Tensor], grams: Tensor) -> tuple[Tensor, Tensor]:
    """Return the transfer matrix ``[bond of a, bond of b]`` from the left end, and the exponent that it lacks.

    Every 16 sites it is divided by a power of two. Gradients do not pass through the powers, because they cancel.
    """
    current, log2 = grams.new_ones(1, 1), grams.new_zeros(())
    for i, (core_a, core_b, gram) in enumerate(zip(a, b, grams, strict=True)):
        current = _step(current, core_a, core_b, gram)
        if (i + 1) % EVERY == 0:
            exponent = torch.frexp(current.detach().abs().amax()).exponent
            current = current * torch.ldexp(grams.new_ones(()), -exponent)
            log2 = log2 + exponent
    return current, log2


def _step(current: Tensor, core_a: Tensor, core_b: Tensor, gram: Tensor) -> Tensor:
    """Return transfer matrices ``[..., bond of a, bond of b]`` after one more site."""
    mixed = torch.tensordot(gram, core_b, ([1], [1]))  # [k, left, right]: sum_l G_kl B_l
    products = (current.unsqueeze(-3) @ mixed).flatten(-3, -2)  # (..., k left of a, right of b)
    return core_a.permute(2, 1, 0).flatten(1) @ products


def check_compatible(a: TensorTrain, b: TensorTrain) -> None:
    """Check that two chains have an inner product.

    Raises:
        ConfigError: One is periodic, or they have different numbers of sites or outputs.
    """
    for chain in (a, b):
        check_open(*chain, "an inner product")
    if len(a.sites) != len(b.sites) or a.centre.shape[1] != b.centre.shape[1]:
        raise ConfigError(
            f"an inner product needs chains of equal size, got {len(a.sites)} sites with {a.centre.shape[1]} outputs "
            f"and {len(b.sites)} sites with {b.centre.shape[1]} outputs"
        )
