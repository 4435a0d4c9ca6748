"""Polynomials as chains: bit-exact on whole numbers, against sums of products of Python's integers."""

import re
from itertools import product
from math import comb, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.models import MPS
from kdzoo.tensor_networks.polynomial import MAX_MONOMIALS, copy_layer, polynomial_layer, to_polynomial
from kdzoo.tensor_networks.truncation import truncate

SIZES = [(d, z) for d in range(1, 60) for z in range(1, 60) if comb(d + z, z) <= 60]


def monomials(d, z):
    """All exponents of d variables with a sum of at most z."""
    if d == 0:
        return [()]
    return [(first, *rest) for first in range(z + 1) for rest in monomials(d - 1, z - first)]


def value(coefficients, x):
    """The polynomial at a point of integers, without rounding."""
    return sum(c * prod(xi**k for xi, k in zip(x, exponents, strict=True)) for exponents, c in coefficients.items())


def evaluate(chain, x):
    """The chain at points (samples, sites), from its definition."""
    sites, centre, m = chain
    rows = []
    for point in x:
        matrices = [core[:, 0] + number * core[:, 1] for core, number in zip(sites, point, strict=True)]
        left = right = torch.ones(1, 1, dtype=torch.float64)
        for matrix in matrices[:m]:
            left = left @ matrix
        for matrix in reversed(matrices[m:]):
            right = matrix @ right
        rows.append(torch.einsum("al,lor,rb->o", left, centre, right))
    return torch.stack(rows)


def small(z, d, generator):
    """Points of whole numbers whose powers stay far below 2^53."""
    largest = max(1, min(3, int(2 ** (40 / z)) - 1))
    return torch.randint(-largest, largest + 1, (4, d), generator=generator)


@pytest.mark.parametrize(("d", "z"), SIZES, ids=[f"{d}-variables-degree-{z}" for d, z in SIZES])
def test_two_layers_are_every_polynomial_bit_by_bit(d, z):
    generator = torch.Generator().manual_seed(100 * d + z)
    exponents = monomials(d, z)
    assert len(exponents) == comb(d + z, z)
    numbers = torch.randint(-9, 10, (len(exponents), 2), generator=generator)
    copying, layer = copy_layer(d, z), polynomial_layer(dict(zip(exponents, numbers, strict=True)), d, z)
    points = small(z, d, generator)
    copies = evaluate(copying, points.double())
    assert torch.equal(copies, points.double().repeat_interleave(z, 1))
    expected = [
        [value(dict(zip(exponents, numbers[:, o].tolist(), strict=True)), point) for o in (0, 1)]
        for point in points.tolist()
    ]
    assert evaluate(layer, copies).tolist() == expected
    assert max(max(core.shape[::2]) for core in copying[0]) <= d + 1
    assert max(max(core.shape[::2]) for core in layer[0]) <= len(exponents)


def test_the_sizes_are_all_with_at_most_sixty_monomials():
    assert len(SIZES) == 137
    assert {(1, 59), (2, 9), (3, 5), (4, 3), (9, 2), (59, 1)} <= set(SIZES)


@pytest.mark.parametrize(("d", "z"), [(2, 2), (3, 2), (3, 3), (2, 4), (3, 5)])
def test_two_models_are_the_polynomial(d, z):
    generator = torch.Generator().manual_seed(0)
    exponents = monomials(d, z)
    numbers = torch.randint(-9, 10, (len(exponents),), generator=generator).tolist()
    coefficients = dict(zip(exponents, numbers, strict=True))
    first, second = MPS(d, d * z, 1).double(), MPS(d * z, 1, 1).double()
    for model, (sites, centre, m) in ((first, copy_layer(d, z)), (second, polynomial_layer(coefficients, d, z))):
        assert model.out_site == m
        model.load_tensors(sites, centre)
    points = torch.randint(-3, 4, (20, d), generator=generator)
    with torch.no_grad():
        found = second(first(points.double()))[:, 0]
    assert found.tolist() == [value(coefficients, point) for point in points.tolist()]


def test_every_degree_in_each_variable_is_more_than_the_total_degree():
    coefficients = {(2, 2, 2): 5, (0, 2, 1): -1, (0, 0, 0): 7}
    points = torch.randint(-3, 4, (10, 3), generator=torch.Generator().manual_seed(0))
    found = evaluate(polynomial_layer(coefficients, 3, 2), points.double().repeat_interleave(2, 1))
    assert found[:, 0].tolist() == [value(coefficients, point) for point in points.tolist()]


@pytest.mark.parametrize(("d", "z"), [(2, 2), (3, 2), (3, 3), (2, 4), (4, 3), (3, 5)])
def test_truncation_finds_the_ranks_of_the_coefficients(d, z):
    """Bonds become the ranks of the coefficients on the copies, divided between the sites on either side."""
    generator = torch.Generator().manual_seed(0)
    exponents = monomials(d, z)
    numbers = torch.randint(1, 10, (len(exponents),), generator=generator)
    sites, centre, m = polynomial_layer(dict(zip(exponents, numbers, strict=True)), d, z)
    smaller, core, error = truncate(sites, centre, m, max_error=1e-12)
    assert error < 1e-12
    points = torch.randn(20, d, dtype=torch.float64, generator=generator).repeat_interleave(z, 1)
    expected = evaluate((sites, centre, m), points)
    torch.testing.assert_close(evaluate((smaller, core, m), points), expected, rtol=1e-10, atol=1e-10)
    for i in range(1, m + 1):
        unfolded: dict[tuple[tuple[bool, ...], tuple[bool, ...]], int] = {}
        for one, number in zip(exponents, numbers.tolist(), strict=True):
            factors = tuple(copy < k for k in one for copy in range(z))
            unfolded[factors[:i], factors[i:]] = number
        rows, columns = ({key[side] for key in unfolded} for side in (0, 1))
        matrix = torch.tensor([[unfolded.get((a, b), 0) for b in columns] for a in rows], dtype=torch.float64)
        assert smaller[i - 1].shape[2] == int(torch.linalg.matrix_rank(matrix))


def test_a_single_layer_cannot_square():
    """What [1, x] spans, fitted to x^2 by least squares, leaves the standard deviation of x^2 less its line."""
    x = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    multilinear = torch.stack([torch.ones(4000), x[:, 0], x[:, 1], x[:, 0] * x[:, 1]], 1).double()
    square = x[:, :1] ** 2
    residual = square - multilinear @ torch.linalg.lstsq(multilinear, square).solution
    assert float(residual.square().mean().sqrt()) == pytest.approx(2**0.5, rel=0.05)


def test_a_trained_single_layer_cannot_square():
    torch.manual_seed(0)
    x = torch.randn(500, 2, dtype=torch.float64)
    model = MPS(2, 1, 2, engine="autograd").double()
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - x[:, 0] ** 2).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() > 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_polynomial_comes_back(data):
    n, z = data.draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1), (4, 1), (3, 2), (7, 1)]))
    exponents = data.draw(st.lists(st.tuples(*[st.integers(0, z)] * n), min_size=1, max_size=8, unique=True))
    numbers = data.draw(st.lists(st.integers(-5, 5), min_size=len(exponents), max_size=len(exponents)))
    coefficients = dict(zip(exponents, numbers, strict=True))
    found = {}
    for copies, number in to_polynomial(*polynomial_layer(coefficients, n, z)).items():
        exponent = tuple(sum(copies[i * z : (i + 1) * z]) for i in range(n))
        assert exponent not in found
        found[exponent] = number.item()
    assert found == {one: float(number) for one, number in coefficients.items() if number}


@pytest.mark.parametrize("out_site", [0, 1, 3])
def test_the_polynomial_of_a_chain_is_the_chain(out_site):
    generator = torch.Generator().manual_seed(0)
    bonds = [1, 2, 3, 1]
    sites = [
        torch.randn(bonds[i] if i != out_site else 2, 3, bonds[i + 1], dtype=torch.float64, generator=generator)
        for i in range(3)
    ]
    if out_site == 0:
        sites[0] = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator)
    ends = (1 if out_site == 0 else sites[out_site - 1].shape[2], 1 if out_site == 3 else sites[out_site].shape[0])
    centre = torch.randn(ends[0], 2, ends[1], dtype=torch.float64, generator=generator)
    found = to_polynomial(sites, centre, out_site)
    assert set(found) == set(product(range(3), repeat=3))
    model = MPS(3, 2, 1, degree=2, out_site=out_site, engine="sweep").double()
    model.load_tensors(sites, centre)
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    expected = sum(
        c * torch.stack([x[:, i] ** k for i, k in enumerate(one)]).prod(0)[:, None] for one, c in found.items()
    )
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_a_large_chain_is_refused():
    sites = [torch.zeros(1, 2, 1, dtype=torch.float64)] * 17
    with pytest.raises(ConfigError, match=f"17 sites with 2 features .* 1.31e.05 monomials; .* {MAX_MONOMIALS}"):
        to_polynomial(sites, torch.zeros(1, 1, 1, dtype=torch.float64), 8)


REFUSED = {
    "exponents": ({(1, 0, 0): 1}, "a monomial of coefficients must have 2 exponents in 0..2, got (1, 0, 0)"),
    "large": ({(1, 3): 1}, "must have 2 exponents in 0..2, got (1, 3)"),
    "none": ({}, "at least one monomial"),
    "outputs": ({(1, 1): [1, 2], (0, 1): 1}, "got 2 with [1, 2] outputs"),
}


@pytest.mark.parametrize(("coefficients", "line"), REFUSED.values(), ids=REFUSED)
def test_unfit_coefficients_are_refused(coefficients, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        polynomial_layer(coefficients, 2, 2)


@pytest.mark.parametrize("name", ["n_inputs", "times"])
def test_no_input_is_refused(name):
    with pytest.raises(ConfigError, match=f"^{name} must be an integer >= 1, got 0$"):
        copy_layer(**({"n_inputs": 2, "times": 2} | {name: 0}))
