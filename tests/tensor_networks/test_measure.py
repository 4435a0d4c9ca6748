"""Inner products of chains, against sums over every point of a discrete product measure."""

import re
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.measure import TensorTrain, inner_product, norm, squared_distance
from kdzoo.tensor_networks.network import reference_outputs


def train(bonds, out_site, d=2, outputs=3, seed=0):
    """Random cores around an output core; ``bonds`` are those of the row of tensors, the ends among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(n_in, outputs if i == out_site else d, n_out, generator=generator, dtype=torch.float64)
        for i, (n_in, n_out) in enumerate(pairwise(bonds))
    ]
    centre = tensors.pop(out_site)
    return TensorTrain(tensors, centre, out_site)


def points(n, atoms=3, seed=1):
    """Equally likely numbers (sites, atoms) of every site, and all their combinations (sites, atoms^n)."""
    marginals = torch.rand(n, atoms, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    index = torch.tensor(list(product(range(atoms), repeat=n))).T
    return marginals, marginals.gather(1, index)


def powers(x, d=2):
    return torch.stack([x**k for k in range(d)], 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(2, 3), st.integers(1, 4))
def test_inner_product_is_the_mean_over_all_points(one_site, other_site, d, bond):
    one = train([1, 2, bond, 3, 2, 1], one_site, d, seed=1)
    other = train([1, bond, 2, 2, 4, 1], other_site, seed=2)
    marginals, x = points(4)
    f, g = reference_outputs(*one, powers(x, d)), reference_outputs(*other, powers(x))
    grams = powers(marginals, d) @ powers(marginals).mT / marginals.shape[1]
    torch.testing.assert_close(inner_product(one, other, grams), (f * g).mean(0), rtol=1e-11, atol=1e-11)


def test_distance_and_norm_are_those_of_the_functions():
    one, other = train([1, 2, 3, 2, 1], 1, seed=1), train([1, 3, 2, 2, 1], 3, seed=2)
    marginals, x = points(3)
    grams = gram_matrices(powers(marginals))
    f, g = reference_outputs(*one, powers(x)), reference_outputs(*other, powers(x))
    assert float(norm(one, grams)) == pytest.approx(float(f.square().sum(1).mean().sqrt()), rel=1e-12)
    assert float(squared_distance(one, other, grams)) == pytest.approx(float((f - g).square().sum(1).mean()), rel=1e-12)
    assert 0 <= float(squared_distance(one, one, grams)) <= 1e-13 * float(norm(one, grams)) ** 2


def test_gradients_of_both_chains():
    one, other = train([1, 2, 2, 1], 1, seed=1), train([1, 2, 2, 1], 2, seed=2)
    grams = gram_matrices(powers(points(2)[0]))

    def of(*tensors):
        a, b = TensorTrain(tensors[:2], tensors[2], 1), TensorTrain(tensors[3:5], tensors[5], 2)
        return squared_distance(a, b, grams), inner_product(a, b, grams)

    tensors = [t.clone().requires_grad_() for t in (*one.sites, one.centre, *other.sites, other.centre)]
    assert torch.autograd.gradcheck(of, tensors)


@pytest.mark.parametrize("size", [1e-3, 1e3], ids=["small", "large"])
def test_long_chains_stay_finite(size):
    n, m = 784, 392
    sites = [torch.full((1, 2, 1), size if i < m else 1 / size, dtype=torch.float64).requires_grad_() for i in range(n)]
    one = TensorTrain(sites, torch.ones(1, 1, 1, dtype=torch.float64), m)  # 1, though each side is 10^-1176 or 10^1176
    grams = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64).repeat(n, 1, 1)
    value = inner_product(one, one, grams).sum()
    assert float(value.detach()) == pytest.approx(1.0, rel=1e-9)
    (gradient,) = torch.autograd.grad(value, sites[0])
    assert float(gradient[0, 0, 0]) == pytest.approx(2 / size, rel=1e-9)


BAD = {
    "periodic": (train([2, 2, 2, 2], 1), 2, "an inner product needs boundary='open', got ends that share a bond"),
    "sites": (train([1, 2, 2, 2, 1], 1), 2, "2 sites with 3 outputs and 3 sites with 3 outputs"),
    "outputs": (train([1, 2, 2, 1], 1, outputs=2), 2, "2 sites with 3 outputs and 2 sites with 2 outputs"),
    "measure": (train([1, 2, 2, 1], 1), 3, "grams must be of shape (2, 2, 2), got (2, 3, 3)"),
}


@pytest.mark.parametrize(("other", "d", "line"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(other, d, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        inner_product(train([1, 2, 2, 1], 1), other, torch.eye(d, dtype=torch.float64).repeat(2, 1, 1))
