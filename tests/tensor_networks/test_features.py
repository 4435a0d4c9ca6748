"""Feature maps of a site: values by their definitions, whitening, units and domains."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MPS
from kdzoo.tensor_networks import (
    FEATURE_MAPS,
    CosSin,
    FeatureMap,
    Legendre,
    Polynomial,
    Trainable,
    Whitened,
    make_feature_map,
)
from kdzoo.tensor_networks.features import equal_maps, gram_matrices, same_settings, whitening_matrices

X = torch.linspace(0, 1, 7, dtype=torch.float64)[None]


def test_powers():
    assert torch.equal(Polynomial(3)(X)[0], torch.stack([X[0] ** k for k in range(4)]))


def test_cosine_and_sine():
    phi = CosSin(2)(X)[0]
    cos, sin = (math.pi / 2 * X[0]).cos(), (math.pi / 2 * X[0]).sin()
    assert torch.allclose(phi, torch.stack([cos**2, math.sqrt(2) * cos * sin, sin**2]), atol=1e-15)
    assert torch.allclose(phi.square().sum(0), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("domain", [(0.0, 1.0), (-2.0, 3.0)], ids=["unit", "other"])
def test_legendre_polynomials_are_orthonormal(domain):
    points = torch.linspace(*domain, 20_001, dtype=torch.float64)[None]
    phi = Legendre(4, domain)(points)
    weights = torch.full((20_001,), 1 / 20_000, dtype=torch.float64)
    weights[[0, -1]] /= 2
    products = (phi[0] * weights) @ phi[0].T
    assert torch.allclose(products, torch.eye(5, dtype=torch.float64), atol=1e-6)


def test_whitening_makes_features_orthonormal_and_leaves_what_is_constant():
    x = torch.rand(500, 3, dtype=torch.float64)
    x[:, 1] = 0.25
    phi = Whitened(Polynomial(2), 3).double()
    phi.calibrate(x)
    found = gram_matrices(phi(x.T))
    assert torch.allclose(found[[0, 2]], torch.eye(3, dtype=torch.float64).expand(2, 3, 3), atol=1e-9)
    assert torch.allclose(phi(x.T)[1, 1:], torch.zeros(2, 500, dtype=torch.float64), atol=1e-12)


def test_a_whitened_line_is_the_standardised_number():
    x = torch.rand(50, 2, dtype=torch.float64)
    phi = Whitened(Polynomial(1), 2).double()
    phi.calibrate(x)
    expected = ((x - x.mean(0)) / x.std(0, correction=0)).T
    assert torch.allclose(phi(x.T)[:, 1], expected)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_whitening_of_any_gram_matrix(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, d, d, generator=generator, dtype=torch.float64)
    grams = root @ root.mT + 1e-3 * torch.eye(d, dtype=torch.float64)
    turn = whitening_matrices(grams)
    assert torch.allclose(turn @ grams @ turn.mT, torch.eye(d, dtype=torch.float64).expand(3, d, d), atol=1e-7)
    assert torch.equal(turn, turn.tril())


@pytest.mark.parametrize("name", FEATURE_MAPS)
@pytest.mark.parametrize("degree", [1, 3])
def test_some_combination_is_about_one(name, degree):
    phi = make_feature_map(name, 4, degree)
    about = phi.unit @ phi.double_features(X.float().expand(4, 7))
    exact = name != "cos_sin"
    assert torch.allclose(about, torch.ones_like(about), atol=1e-12 if exact else 0.35)


def test_each_site_has_its_own_combination():
    torch.manual_seed(0)
    phi = Whitened(CosSin(1, (0.0, 1.0)), 3)
    phi.calibrate(torch.rand(200, 3, dtype=torch.float64) ** torch.tensor([1.0, 4.0, 0.25]))
    assert phi.unit.shape == (3, 2)
    about = torch.einsum("nd,nds->ns", phi.unit, phi.double_features(X.expand(3, 7)))
    shared = CosSin(1).unit @ CosSin(1).double_features(X)[0]  # the same span: the same best combination
    torch.testing.assert_close(about, shared.expand(3, 7))


def test_units_are_made_where_the_map_is():
    seen = []

    class Spy(FeatureMap):
        def features(self, x):
            seen.append(x.device.type)
            return torch.ones(1, 2, 3)

    assert Polynomial(2).to("meta").unit.device.type == "meta"
    assert Spy(2, (0.0, 1.0)).to("meta").unit.device.type == "meta"
    assert seen == ["meta"]


def test_a_map_without_numbers_has_no_weights_to_save():
    assert Polynomial(2).state_dict() == {}


SEEN = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))


def whitened(degree=1, power=1.0):
    found = Whitened(Polynomial(degree), 3)
    found.calibrate(SEEN**power)
    return found


OTHERS = {
    "class": (Legendre(1), CosSin(1)),
    "degree": (Polynomial(1), Polynomial(2)),
    "domain": (Legendre(1), Legendre(1, (0.0, 2.0))),
    "any-domain": (Polynomial(1), Polynomial(1, (0.0, 2.0))),
    "inner-map": (Whitened(Polynomial(1), 3), Whitened(Legendre(1), 3)),
    "basis": (Trainable(2, 3), Trainable(2, 4)),
}


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS)
def test_maps_of_another_kind(one, other):
    assert same_settings(one, one)
    assert equal_maps(one, copy.deepcopy(one))
    assert not same_settings(one, other)
    assert not equal_maps(one, other)


def test_maps_of_one_kind_with_other_numbers():
    assert equal_maps(whitened(), whitened().double())
    assert not equal_maps(whitened(), whitened(power=2.0))
    assert same_settings(whitened(), whitened(power=2.0))
    one, other = Trainable(2), Trainable(2)
    assert equal_maps(one, other)
    with torch.no_grad():
        other.weight[0, 1] = 0.5
    assert not equal_maps(one, other)


def test_domains_are_not_looked_at_under_vmap_and_are_under_grad():
    phi = Legendre(1)
    x = torch.rand(4, 2, 3)

    def total(x):
        return phi(x).sum()

    slopes = torch.func.vmap(torch.func.grad(total))(x)
    torch.testing.assert_close(slopes, torch.full_like(x, 2 * 3**0.5))
    with pytest.raises(DataError, match=r"takes inputs in \[0, 1\]"):
        torch.func.grad(total)(x[0] + 1)


def test_trainable_maps_learn_and_start_as_legendre():
    phi = Trainable(3, 5).double()
    assert torch.allclose(phi(X), Legendre(2)(X))
    phi(X).square().sum().backward()
    assert phi.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["cos_sin", "legendre", "trainable"])
def test_inputs_outside_of_the_domain_are_refused(name):
    with pytest.raises(DataError, match=r"inputs in \[0, 1\] \(domain\), got values from 0.5 to 1.5"):
        make_feature_map(name, 2)(torch.tensor([[0.5, 1.5]]))
    make_feature_map(name, 2)(torch.tensor([[0.0, 1.00001]]))  # rounding


def test_other_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="feature_map must be one of"):
        make_feature_map("fourier", 2)
    with pytest.raises(ConfigError, match="degree"):
        make_feature_map("polynomial", 2, 0)
    with pytest.raises(ConfigError, match="domain"):
        make_feature_map("legendre", 2, domain=(1.0, 0.0))


def test_a_map_of_ones_own_is_taken():
    class Half(FeatureMap):
        def features(self, x):
            return torch.stack([torch.full_like(x, 0.5), x.sin()], 1)

    model = MPS(6, 2, 3, feature_map=Half(2, (0.0, 1.0)))
    assert model(torch.rand(4, 6)).shape == (4, 2)
    assert Half(2, (0.0, 1.0)).unit @ Half(2, (0.0, 1.0)).double_features(X)[0] == pytest.approx([1.0] * 7, abs=1e-9)
