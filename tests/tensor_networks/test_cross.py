"""Tensor cross interpolation: exact for chains of the rank that is asked for, and at its pivots for any function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, DataError
from kdzoo.tensor_networks.cross import cross_interpolate, pivoted_lu
from kdzoo.tensor_networks.features import CosSin, Legendre, Polynomial
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import Limits


def evaluate(tensors, out_site, phi):
    """The chain at features (sites, d, samples), sample by sample, from its definition."""
    rows = []
    for sample in range(phi.shape[2]):
        left = right = torch.ones(1, 1, dtype=torch.float64)
        sites = [tensor for i, tensor in enumerate(tensors) if i != out_site]
        matrices = [torch.einsum("ldr,d->lr", core, phi[k, :, sample]) for k, core in enumerate(sites)]
        for matrix in matrices[:out_site]:
            left = left @ matrix
        for matrix in reversed(matrices[out_site:]):
            right = matrix @ right
        rows.append(torch.einsum("al,lor,rb->o", left, tensors[out_site], right))
    return torch.stack(rows)


def chain(n_sites, d, rank, n_outputs, out_site):
    generator = torch.Generator().manual_seed(0)
    bonds = [1, *[rank] * n_sites, 1]
    legs = [n_outputs if i == out_site else d for i in range(n_sites + 1)]
    return [
        torch.randn(left, leg, right, dtype=torch.float64, generator=generator)
        for left, leg, right in zip(bonds, legs, bonds[1:], strict=False)
    ]


def points(n, n_sites, seed=1):
    return torch.rand(n, n_sites, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("out_site", [0, 3, 7], ids=["first", "middle", "last"])
@pytest.mark.parametrize("n_outputs", [1, 3], ids=["number", "vector"])
@pytest.mark.parametrize("feature_map", [Polynomial(1), Legendre(2), CosSin(1)], ids=["linear", "legendre", "cos-sin"])
def test_a_chain_of_the_rank_is_found(out_site, n_outputs, feature_map):
    features = feature_map.double_features
    given = chain(7, feature_map.d, 3, n_outputs, out_site)

    def function(x):
        return evaluate(given, out_site, features(x.T))

    sites, centre, info = cross_interpolate(
        Oracle(function), points(20, 7), features, rank=3, cutoff=1e-10, out_site=out_site
    )
    x = points(15, 7, seed=9)
    found = evaluate([*sites[:out_site], centre, *sites[out_site:]], out_site, features(x.T))
    assert (found - function(x)).norm() / function(x).norm() < 1e-8
    assert info.error < 1e-8
    assert max(info.bonds) == 3
    assert info.finished


def test_the_cut_off_finds_the_rank():
    features = Polynomial(1).double_features
    given = chain(8, 2, 3, 2, 4)
    *_, info = cross_interpolate(
        Oracle(lambda x: evaluate(given, 4, features(x.T))), points(20, 8), features, cutoff=1e-8
    )
    assert max(info.bonds) == 3


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), rank=st.integers(1, 6), seed=st.integers(0, 100))
def test_pivots_of_a_matrix_interpolate_it(rows, columns, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, rank, dtype=torch.float64, generator=generator)
    matrix = a @ torch.randn(rank, columns, dtype=torch.float64, generator=generator)
    i, j = pivoted_lu(matrix, Limits(None, 1e-10))
    assert len(i) == len(j) == len(set(i)) == len(set(j)) == min(rows, columns, rank)
    assert matrix.abs().max() == matrix[i[0], j[0]].abs()
    again = matrix[:, j] @ torch.linalg.solve(matrix[i][:, j], matrix[i])
    assert torch.allclose(again, matrix, atol=1e-8 * float(matrix.abs().max()))
    assert len(pivoted_lu(matrix, Limits(1, 0.0))[0]) == 1


def test_a_zero_matrix_has_one_pivot():
    assert pivoted_lu(torch.zeros(3, 2), Limits(None, 1e-10)) == ([0], [0])


def test_a_function_of_nothing():
    sites, centre, info = cross_interpolate(
        Oracle(lambda x: x[:, :2] * 0), points(9, 5), Polynomial(1).double_features, rank=3
    )
    assert info.error == 0
    assert all(not bool(one.any()) or bool(one.isfinite().all()) for one in (*sites, centre))


def spike(x):
    """1 at (1, ..., 1) and next to nothing elsewhere on the grid."""
    return 1e-3 + (x > 0.5).all(1, keepdim=True).double()


def test_a_sample_shows_what_no_two_legs_show():
    x = torch.zeros(2, 8, dtype=torch.float64)
    x[1] = 1
    features = Polynomial(1).double_features
    *_, blind = cross_interpolate(Oracle(spike), x[:1], features, rank=2, cutoff=1e-10)
    sites, centre, info = cross_interpolate(Oracle(spike), x, features, rank=2, cutoff=1e-10)
    assert max(blind.bonds) == 1
    found = evaluate([*sites[:4], centre, *sites[4:]], 4, features(x.T))
    assert torch.allclose(found, spike(x), atol=1e-10)
    assert info.error < 1e-10


def test_what_the_budget_leaves_is_the_chain_of_the_last_pivots():
    function, features = lambda x: (x * torch.arange(1, 9)).sum(1, keepdim=True).sin(), Polynomial(1).double_features
    seen = []
    whole = [
        cross_interpolate(Oracle(function), points(20, 8), features, rank=4, sweeps=sweeps)[2] for sweeps in (1, 2)
    ]
    assert whole[0].evaluations < whole[1].evaluations
    for budget in range(whole[0].evaluations, whole[1].evaluations, 7):
        oracle = Oracle(function, budget=budget)
        sites, centre, info = cross_interpolate(oracle, points(20, 8), features, rank=4, sweeps=2)
        assert info.evaluations <= budget
        assert all(bool(one.isfinite().all()) for one in (*sites, centre))
        seen.append(info.finished)
    assert not any(seen)
    with pytest.raises(BudgetError):
        cross_interpolate(Oracle(function, budget=whole[0].evaluations - 1), points(20, 8), features, rank=4)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rank": 0}, "rank"),
        ({"cutoff": 2.0}, "cutoff"),
        ({"out_site": 6}, "out_site"),
        ({"sweeps": 0}, "sweeps"),
        ({"pivots": 0}, "pivots"),
        ({"domain": (1.0, 0.0)}, "domain"),
        ({"domain": (1.0, 1.0)}, "independent features"),
    ],
    ids=["rank", "cutoff", "out-site", "sweeps", "pivots", "order", "one-point"],
)
def test_arguments(changes, match):
    with pytest.raises(ConfigError, match=match):
        cross_interpolate(Oracle(lambda x: x[:, :1]), points(9, 5), Polynomial(1).double_features, **changes)


def test_samples_must_be_a_matrix():
    with pytest.raises(DataError, match="matrix"):
        cross_interpolate(Oracle(lambda x: x[:, :1]), points(9, 5)[0], Polynomial(1).double_features)
