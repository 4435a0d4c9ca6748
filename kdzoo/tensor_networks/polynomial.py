"""Polynomials as chains with the features [1, x], and the coefficients of the polynomial that a chain computes.

A chain with the features [1, x] is multilinear in its inputs. Two of them, one after the other, can express every
polynomial: the first copies each input z times (:func:`copy_layer`), and a product of powers x_i^k_i, k_i <= z, is a
product of different copies, which the second multiplies and sums (:func:`polynomial_layer`). Piché 2023, section 5.2,
states this for polynomials of total degree <= z; z copies of each input give more, namely every polynomial of degree
<= z in each input, whose total degree is up to z times the number of inputs.

All tensors here hold only 0, 1 and the coefficients, so that whole numbers are exact in float64 up to 2^53.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.measure import TensorTrain

Exponents = tuple[int, ...]
Coefficients = Mapping[Exponents, int | float | Sequence[int | float] | Tensor]
"""Exponents of the inputs -> coefficient, or those of all outputs."""

# Largest number of monomials that a chain is expanded into: 16 inputs with the features [1, x]. An expansion takes time
# and memory in proportion, and a longer one is not readable.
MAX_MONOMIALS = 2**16


def copy_layer(n_inputs: int, times: int) -> TensorTrain:
    """Return the chain with the features [1, x] whose outputs are ``times`` copies of every input.

    The state next to the output core is (1, inputs of its side), so no bond is larger than n_inputs / 2 + 3 / 2. The
    output core has about n_inputs^3 times / 4 numbers.

    Args:
        n_inputs: Number of sites n, >= 1.
        times: Number of copies z, >= 1; outputs i z, ..., i z + z - 1 are input i.

    References:
        Piché: Neural network knowledge distillation in tensor networks. 2023, eq. 9.
    """
    n, z = integer("n_inputs", n_inputs), integer("times", times)
    m = n // 2
    left = [_append(i + 1) for i in range(m)]
    right = [_append(n - i).permute(2, 1, 0) for i in range(m, n)]
    centre = torch.zeros(m + 1, n * z, n - m + 1, dtype=torch.float64)
    for i in range(n):  # the left state is (1, x_0, ..., x_m-1), the right one (1, x_n-1, ..., x_m)
        row, column = (i + 1, 0) if i < m else (0, n - i)
        centre[row, i * z : (i + 1) * z, column] = 1
    return TensorTrain([*left, *right], centre, m)


def polynomial_layer(coefficients: Coefficients, n_inputs: int, degree: int) -> TensorTrain:
    """Return the chain with the features [1, x] that computes a polynomial from ``degree`` copies of every input.

    The power of an input is a product of as many of its copies as the exponent. A bond has one dimension for each
    different part that the monomials have on its outer side, so that none is larger than the number of monomials.

    Args:
        coefficients: Exponents of the inputs -> coefficient, or those of all outputs; at least one monomial. No
            exponent is larger than ``degree``; the total degree is free.
        n_inputs: Number of inputs, >= 1.
        degree: Copies z of each input, >= 1, in the order of :func:`copying_layer`.

    Raises:
        ConfigError: A monomial has another number of exponents or one outside 0..degree, or the numbers of outputs
            differ.

    References:
        Piché: Neural network knowledge distillation in tensor networks. 2023, eqs. 11 to 13.
    """
    n, z = integer("n_inputs", n_inputs), integer("degree", degree)
    values = _outputs(coefficients)
    factors = [_factors(exponents, n, z) for exponents in coefficients]
    m = n * z // 2
    left, firsts = _products([uses[:m] for uses in factors])
    right, lasts = _products([uses[m:][::-1] for uses in factors])
    centre = torch.zeros(max(firsts) + 1, values.shape[1], max(lasts) + 1, dtype=torch.float64)
    for first, value, last in zip(firsts, values, lasts, strict=True):
        centre[first, :, last] = value
    return TensorTrain([*left, *(core.permute(2, 1, 0) for core in reversed(right))], centre, m)


def to_polynomial(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> dict[Exponents, Tensor]:
    """Return the coefficients of a chain whose features are the powers 1, x, ..., x^(d-1).

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.

    Returns:
        Exponents of the sites' inputs -> coefficients of all outputs in float64; monomials whose coefficients are
        all 0 are left out.

    Raises:
        ConfigError: There would be more than 65,536 monomials.
    """
    dims = [core.shape[1] for core in sites]
    _check_monomials(f"a chain of {len(sites)} sites with {max(dims)} features", prod(dims))
    left = right = centre.double().new_ones(1, 1)  # [monomials, bond], [bond, monomials]
    for core in sites[:out_site]:
        left = torch.einsum("ml,ldr->mdr", left, core.double()).flatten(0, 1)
    for core in reversed(sites[out_site:]):
        right = torch.einsum("ldr,rm->ldm", core.double(), right).flatten(1)
    values = torch.einsum("al,lor,rb->abo", left, centre.double(), right).flatten(0, 1)
    exponents = product(*map(range, dims))
    return {powers: value for powers, value in zip(exponents, values, strict=True) if value.any()}


def compose(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    numbers: Sequence[Mapping[Exponents, float]],
    n_inputs: int,
) -> dict[Exponents, Tensor]:
    """Return the coefficients of a chain with the features [1, x] whose inputs are polynomials of other inputs.

    The state of a bond, a vector of polynomials, is passed from the left end to the right one: multiplying it by the
    polynomial of a site is a sum of shifted copies, one for each monomial.

    Args:
        sites: Cores ``[left, 2, right]`` from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        numbers: Polynomial of each site: exponents of the inputs -> coefficient.
        n_inputs: Number of inputs, >= 1.

    Returns:
        Exponents of the inputs -> coefficients of all outputs in float64; monomials whose coefficients are all 0 are
        left out.

    Raises:
        ConfigError: There might be more than 65,536 monomials: products of powers of every input up to the sum of its
            largest exponents in the numbers.
    """
    sizes = [
        1 + sum(max((exponents[i] for exponents in number), default=0) for number in numbers) for i in range(n_inputs)
    ]
    _check_monomials(f"a chain of {len(sites)} sites, whose numbers depend on {n_inputs} inputs,", prod(sizes))
    state = centre.double().new_zeros(1, 1, *sizes)  # (1 or outputs, bond, exponents of each input)
    state[(0, 0, *[0] * n_inputs)] = 1
    all_of = slice(None)
    for site in range(len(sites) + 1):
        if site == out_site:
            state = torch.einsum("xl...,lor->or...", state, centre.double())
        if site < len(sites):
            state, varied = (torch.einsum("ol...,lr->or...", state, core) for core in sites[site].double().unbind(1))
            for exponents, coefficient in numbers[site].items():
                target = (all_of, all_of, *(slice(shift, None) for shift in exponents))
                source = (all_of, all_of, *(slice(size - shift) for shift, size in zip(exponents, sizes, strict=True)))
                state[target] += coefficient * varied[source]
    values = state[:, 0].flatten(1).T
    exponents_of_all = product(*map(range, sizes))
    return {powers: value for powers, value in zip(exponents_of_all, values, strict=True) if value.any()}


def _check_monomials(what: str, count: int) -> None:
    """Reject an expansion that is too large."""
    if count > MAX_MONOMIALS:
        raise ConfigError(
            f"{what} is a polynomial of up to {float(count):.3g} monomials; to_polynomial allows {MAX_MONOMIALS}"
        )


def _append(n: int) -> Tensor:
    """Return the core (n, 2, n + 1) that appends its input to a state whose first number is 1."""
    core = torch.zeros(n, 2, n + 1, dtype=torch.float64)
    core[:, 0, :n] = torch.eye(n)
    core[0, 1, n] = 1
    return core


def _outputs(coefficients: Coefficients) -> Tensor:
    """Return the coefficients ``[monomials, outputs]``."""
    values = [torch.as_tensor(value, dtype=torch.float64).flatten() for value in coefficients.values()]
    lengths = {len(value) for value in values}
    if len(lengths) != 1 or 0 in lengths:
        raise ConfigError(
            f"coefficients must hold at least one monomial, each with the same number of outputs, "
            f"got {len(values)} with {sorted(lengths)} outputs"
        )
    return torch.stack(values)


def _factors(exponents: Exponents, n: int, z: int) -> tuple[bool, ...]:
    """Return for every copy of every input whether it is a factor of the monomial."""
    if len(exponents) != n or not all(0 <= exponent <= z for exponent in exponents):
        raise ConfigError(f"a monomial of coefficients must have {n} exponents in 0..{z}, got {tuple(exponents)}")
    return tuple(copy < exponent for exponent in exponents for copy in range(z))


def _products(factors: Sequence[Sequence[bool]]) -> tuple[list[Tensor], list[int]]:
    """Return cores whose last state holds every different product, and the index of the product of each monomial.

    Args:
        factors: For each monomial, for each site from the outer end: whether its input is a factor.
    """
    cores = []
    before, size = [0] * len(factors), 1  # index of each monomial's product so far, and number of different ones
    for site in range(len(factors[0])):
        table: dict[tuple[int, bool], int] = {}
        after = [table.setdefault((state, uses[site]), len(table)) for state, uses in zip(before, factors, strict=True)]
        core = torch.zeros(size, 2, len(table), dtype=torch.float64)
        for (state, factor), number in table.items():
            core[state, int(factor), number] = 1
        cores.append(core)
        before, size = after, len(table)
    return cores, before
