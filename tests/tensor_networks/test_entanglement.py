"""Entropies of bonds against the definition on the whole tensor of a small chain."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.models import MPS
from kdzoo.tensor_networks.entanglement import entropies, entropy, orthonormal_legs, squared_shares
from kdzoo.tensor_networks.features import Legendre, Polynomial, gram_matrices
from kdzoo.tensor_networks.network import spectra


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], 0.0),
        ([2.0, 0.0, 0.0], 0.0),
        ([3.0, 3.0], math.log(2)),
        ([1.0] * 8, math.log(8)),
        ([2.0, 1.0], -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))),
        ([0.0, 0.0], 0.0),
        ([1e-200, 1e-200], math.log(2)),
        ([1e200, 1e200], math.log(2)),
    ],
    ids=["one", "product", "two", "flat", "uneven", "zero", "tiny", "huge"],
)
def test_entropy_is_that_of_the_definition(values, expected):
    assert entropy(torch.tensor(values, dtype=torch.float64)) == pytest.approx(expected, abs=1e-15)


@settings(deadline=None)
# Numbers below 1e-300 would lose digits when they are multiplied by the factor.
@given(st.lists(st.just(0.0) | st.floats(1e-300, 100), min_size=1, max_size=9), st.floats(1e-3, 1e3))
def test_shares_sum_to_one_whatever_the_scale(values, factor):
    numbers = torch.tensor(values, dtype=torch.float64)
    shares = squared_shares(numbers)
    assert shares.sum().item() == pytest.approx(1.0 if numbers.any() else 0.0)
    assert bool((shares.diff() <= 0).all())
    torch.testing.assert_close(squared_shares(factor * numbers), shares)
    assert -1e-12 <= entropy(numbers) <= math.log(len(values)) + 1e-12


MAPS = {"powers": Polynomial(1), "cubes": Polynomial(3), "legendre": Legendre(2)}


@pytest.mark.parametrize("name", MAPS)
def test_orthonormal_legs_are_the_same_function(name):
    """The features that make of the new cores what the old ones are have the unit matrix as mean products."""
    torch.manual_seed(0)
    d = MAPS[name].d
    sites = [torch.randn(3, d, 5, dtype=torch.float64) for _ in range(4)]
    phi = MAPS[name].features(torch.rand(4, 40, dtype=torch.float64))
    for core, features, other in zip(sites, phi, orthonormal_legs(sites, gram_matrices(phi)), strict=True):
        expected = torch.einsum("ldr,ds->lrs", core, features).flatten(0, 1)
        weights = other.transpose(1, 2).flatten(0, 1)  # (left and right bond, d)
        white = torch.linalg.lstsq(weights, expected).solution
        torch.testing.assert_close(weights @ white, expected)
        torch.testing.assert_close(gram_matrices(white[None])[0], torch.eye(d, dtype=torch.float64))


def test_weights_that_no_input_shows_are_left_out():
    core = torch.tensor([[[2.0], [5.0]]], dtype=torch.float64)  # 2 + 5 x, where x is always 0
    assert orthonormal_legs([core], gram_matrices(torch.tensor([[[1.0] * 3, [0.0] * 3]])))[0].abs().sum().item() == 2


def test_the_squares_of_a_bond_are_the_mean_square_of_the_function():
    """Orthonormal legs make the spectrum one of functions: its squares sum to E[f^2] under the product measure."""
    torch.manual_seed(0)
    model = MPS(4, 2, 3, noise=3.0).double()
    values = torch.rand(4, 5, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(*values, indexing="ij"), -1).flatten(0, 3)
    with torch.no_grad():
        expected = model(points).square().mean(0).sum()
    turned = orthonormal_legs(model.sites(), gram_matrices(model.feature_map(values)))
    for values in spectra(turned, model.centre.detach(), model.out_site):
        torch.testing.assert_close(values.square().sum(), expected)


def test_entropies_are_those_of_the_function():
    """Schmidt's coefficients of f on the grid, every point with the root of its probability."""
    torch.manual_seed(0)
    model = MPS(4, 1, 3, noise=3.0).double()
    values = torch.rand(4, 5, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(*values, indexing="ij"), -1).flatten(0, 3)
    with torch.no_grad():
        table = model(points)[:, 0] / 5**2
    expected = [entropy(torch.linalg.svdvals(table.view(5**cut, -1))) for cut in (1, 2, 2, 3)]
    turned = orthonormal_legs(model.sites(), gram_matrices(model.feature_map(values)))
    found = entropies(spectra(turned, model.centre.detach(), model.out_site))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_product_of_functions_has_no_entropy():
    torch.manual_seed(0)
    sites = [torch.randn(1, 2, 1, dtype=torch.float64) for _ in range(4)]
    found = entropies(spectra(sites, torch.ones(1, 1, 1, dtype=torch.float64), 2))
    assert found.tolist() == [0.0] * 4


def test_entropies_of_many_bonds_are_those_of_each():
    spectra = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    assert entropies(spectra).tolist() == [entropy(one) for one in spectra]
    assert entropies([]).shape == (0,)
