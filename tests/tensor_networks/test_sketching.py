"""Recursive sketching: exact for chains of the rank that is asked for, whatever the order of the samples."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, DataError
from kdzoo.tensor_networks.features import Legendre, Polynomial
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import sketch


def chain(n_sites, d, rank, n_outputs, out_site, seed=0):
    """Random tensors, in the order of the chain."""
    generator = torch.Generator().manual_seed(seed)
    bonds = [1, *[rank] * n_sites, 1]
    legs = [n_outputs if i == out_site else d for i in range(n_sites + 1)]
    return [
        torch.randn(left, leg, right, dtype=torch.float64, generator=generator)
        for left, leg, right in zip(bonds, legs, bonds[1:], strict=False)
    ]


def evaluate(tensors, out_site, phi):
    """The chain at features (sites, d, samples): the sum over all products of features, each with its coefficient."""
    sites = [tensor for i, tensor in enumerate(tensors) if i != out_site]
    coefficients, products = [], []
    for legs in itertools.product(*(range(core.shape[1]) for core in sites)):
        matrices = [core[:, leg] for core, leg in zip(sites, legs, strict=True)]
        left = functools.reduce(torch.matmul, matrices[:out_site], torch.ones(1, 1, dtype=torch.float64))
        right = functools.reduce(lambda a, b: b @ a, matrices[out_site:][::-1], torch.ones(1, 1, dtype=torch.float64))
        coefficients.append(torch.einsum("al,lor,rb->o", left, tensors[out_site], right))
        products.append(torch.stack([phi[site, leg] for site, leg in enumerate(legs)]).prod(0))
    return torch.stack(products).T @ torch.stack(coefficients)


def gap(function, found, out_site, features, n_sites):
    """Relative error at new points."""
    sites, centre, _ = found
    x = torch.rand(15, n_sites, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    tensors = [*sites[:out_site], centre, *sites[out_site:]]
    wanted = function(x)
    return float((evaluate(tensors, out_site, features(x.T)) - wanted).norm() / wanted.norm())


def points(n, n_sites, seed=1):
    return torch.rand(n, n_sites, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("out_site", [0, 2, 5], ids=["first", "middle", "last"])
@pytest.mark.parametrize("domain", [None, [0.0, 0.5, 1.0]], ids=["own-numbers", "domain"])
@pytest.mark.parametrize("n_outputs", [1, 3], ids=["number", "vector"])
@pytest.mark.parametrize("degree", [1, 2], ids=["linear", "square"])
def test_a_chain_of_the_rank_is_found(out_site, domain, n_outputs, degree):
    features = Legendre(degree).double_features
    given = chain(5, degree + 1, 3, n_outputs, out_site)

    def function(x):
        return evaluate(given, out_site, features(x.T))

    found = sketch(
        Oracle(function), points(14, 5), features, rank=3, cutoff=1e-10, ends=6, out_site=out_site, domain=domain
    )
    assert gap(function, found, out_site, features, 5) < 1e-8
    assert found[2].error < 1e-8
    assert max(found[2].bonds) == 3
    chained = [*found[0][:out_site], found[1], *found[0][out_site:]]
    assert found[2].bonds == (1, *(one.shape[2] for one in chained))
    assert all(one.shape[2] == other.shape[0] for one, other in itertools.pairwise(chained))


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)), again=st.lists(st.integers(0, 11), max_size=4))
def test_order_and_repetitions_of_samples_do_not_matter(order, again):
    features, x = Polynomial(1).double_features, points(12, 5)

    def function(x):
        return torch.stack([x.sin().sum(1), x.cos().prod(1)], 1)

    expected = sketch(Oracle(function), x, features, rank=2, ends=5, domain=[0.0, 1.0])
    mixed = sketch(Oracle(function), x[[*order, *again]], features, rank=2, ends=5, domain=[0.0, 1.0])
    assert all(torch.equal(one, other) for one, other in zip(expected[0], mixed[0], strict=True))
    assert torch.equal(expected[1], mixed[1])
    assert expected[2] == mixed[2]


def test_the_cut_off_finds_the_rank():
    features = Polynomial(1).double_features
    given = chain(6, 2, 3, 2, 3)
    found = sketch(
        Oracle(lambda x: evaluate(given, 3, features(x.T))), points(10, 6), features, cutoff=1e-8, domain=[0.0, 1.0]
    )
    assert max(found[2].bonds) == 3


def test_evaluations_are_counted_and_stay_below_what_is_promised():
    seen = []

    def function(x):
        seen.append(x)
        return x.sum(1, keepdim=True).exp()

    x = points(10, 6).round(decimals=0)  # zeros and ones: most recombinations are known
    *_, info = sketch(Oracle(function), x, Polynomial(1).double_features, rank=2, ends=4, domain=[0.0, 1.0])
    given = torch.cat(seen)
    assert info.evaluations == len(given) == len(given.unique(dim=0)) <= 2**6
    n = len(x.unique(dim=0))
    assert info.asked == 6 * n * 4 * 3 + n * n


def test_a_better_rank_is_a_better_imitation():
    features = Polynomial(1).double_features
    errors = [
        sketch(Oracle(lambda x: x.sum(1, keepdim=True).sin()), points(30, 8), features, rank=rank)[2].error
        for rank in (1, 2, 4)
    ]
    assert errors[0] > 2 * errors[1] >= errors[2]


def test_a_site_that_never_changes_and_a_function_of_nothing():
    x = points(20, 5)
    x[:, 2] = 0
    sites, centre, info = sketch(Oracle(lambda x: x[:, :2] * 0 + 7), x, Polynomial(1).double_features, rank=3)
    assert info.bonds == (1,) * 7
    assert all(bool(one.isfinite().all()) for one in (*sites, centre))
    assert info.error < 1e-12
    *_, info = sketch(Oracle(lambda x: x[:, :2] * 0), x, Polynomial(1).double_features, rank=3)
    assert info.error == 0


def test_the_budget_is_kept():
    oracle = Oracle(lambda x: x[:, :1], budget=50)
    with pytest.raises(BudgetError):
        sketch(oracle, points(20, 6), Polynomial(1).double_features, rank=2)
    assert oracle.evaluations <= 50


@pytest.mark.parametrize(
    ("name", "value"),
    [("rank", 0), ("cutoff", -1.0), ("out_site", 7), ("ends", 0), ("domain", [float("nan")])],
    ids=["rank", "cutoff", "out-site", "ends", "domain"],
)
def test_arguments(name, value):
    with pytest.raises(ConfigError, match=name.replace("_", ".")):
        sketch(Oracle(lambda x: x[:, :1]), points(9, 6), Polynomial(1).double_features, **{name: value})


def test_samples_must_be_a_matrix_of_enough_rows():
    for samples, reason in ((points(3, 6), "more than 3"), (points(3, 6)[0], "matrix"), (points(3, 6)[:0], "matrix")):
        with pytest.raises(DataError, match=reason):
            sketch(Oracle(lambda x: x[:, :1]), samples, Polynomial(1).double_features, rank=3)
