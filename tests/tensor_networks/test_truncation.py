"""Truncation: its error is what it says, by transfer matrices, by Monte Carlo and over all points of a measure."""

import re
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.models import MPS
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.measure import TensorTrain, norm, squared_distance
from kdzoo.tensor_networks.network import reference_outputs
from kdzoo.tensor_networks.truncation import balanced_truncation, state_moments, truncate


def train(n, out_site, bond=6, d=2, outputs=3, seed=0, noise=0.4):
    """A chain of unit matrices with noise."""
    generator = torch.Generator().manual_seed(seed)
    bonds, tensors = [1, *[bond] * n, 1], []
    for i, (n_in, n_out) in enumerate(pairwise(bonds)):
        core = noise * torch.randn(
            n_in, outputs if i == out_site else d, n_out, generator=generator, dtype=torch.float64
        )
        core[:, 0] += torch.eye(n_in, n_out, dtype=torch.float64)
        tensors.append(core)
    centre = tensors.pop(out_site)
    return TensorTrain(tensors, centre, out_site)


def powers(x, d=2):
    return torch.stack([x**k for k in range(d)], 1)


def numbers(n, samples, seed=1):
    return torch.rand(n, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bonds_of(chain):
    return [core.shape[2] for core in chain.sites]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8), st.sampled_from([0.0, 1e-6, 0.01, 0.1, 0.4, 0.9]), st.integers(2, 3), st.integers(0, 3))
def test_the_error_is_exact_and_within_its_limit(out_site, limit, d, seed):
    before = train(8, out_site, d=d, seed=seed)
    grams = gram_matrices(powers(numbers(8, 50), d))
    sites, centre, error = truncate(*before, grams=grams, max_error=limit)
    after = TensorTrain(sites, centre, out_site)
    measured = float(squared_distance(before, after, grams).sqrt() / norm(before, grams))
    assert error <= limit
    assert measured == pytest.approx(error, rel=1e-6, abs=1e-6)  # the root of what is rounding of a norm


@pytest.mark.parametrize("out_site", [0, 2, 5])
def test_the_error_over_every_point_of_a_measure(out_site):
    before, marginals = train(5, out_site), numbers(5, 3)
    x = marginals.gather(1, torch.tensor(list(product(range(3), repeat=5))).T)
    sites, centre, error = truncate(*before, grams=gram_matrices(powers(marginals)), max_error=0.2)
    f, g = reference_outputs(*before, powers(x)), reference_outputs(sites, centre, out_site, powers(x))
    assert float((f - g).norm() / f.norm()) == pytest.approx(error, rel=1e-9)
    assert 0 < error <= 0.2


def test_the_error_by_monte_carlo():
    before, n = train(12, 6, bond=8), 40_000
    grams = torch.tensor([[1, 1 / 2], [1 / 2, 1 / 3]], dtype=torch.float64).repeat(12, 1, 1)  # of a uniform number
    sites, centre, error = truncate(*before, grams=grams, bond_dim=3)
    phi = powers(numbers(12, n))
    f, g = reference_outputs(*before, phi), reference_outputs(sites, centre, 6, phi)
    squares, whole = (f - g).square().sum(1), f.square().sum(1)
    share = squares.mean() / whole.mean()
    deviation = (squares - share * whole).std() / whole.mean() / n**0.5  # of a ratio of means
    assert abs(float(share) - error**2) <= 4 * float(deviation)


@pytest.mark.parametrize("out_site", [0, 3, 6])
def test_of_one_bond_it_is_the_best(out_site):
    before = train(6, out_site)
    grams = gram_matrices(powers(numbers(6, 50)))
    for cap in (1, 2, 3):
        sites, centre, error = truncate(*before, grams=grams, bond_dim=cap)
        assert max(bonds_of(TensorTrain(sites, centre, out_site))) <= cap
        unweighted = truncate(*before, bond_dim=cap)
        other = squared_distance(before, TensorTrain(unweighted[0], unweighted[1], out_site), grams).sqrt() / norm(
            before, grams
        )
        assert error <= float(other) * 6**0.5  # at most the square root of the bonds above the best of all


def test_what_fits_is_kept():
    before = train(6, 3)
    sites, centre, error = truncate(*before, bond_dim=3)
    again, middle, nothing = truncate(sites, centre, 3, max_error=1e-9)
    assert nothing <= 1e-9 < error
    assert bonds_of(TensorTrain(again, middle, 3)) == bonds_of(TensorTrain(sites, centre, 3))
    phi = powers(numbers(6, 4))
    torch.testing.assert_close(reference_outputs(again, middle, 3, phi), reference_outputs(sites, centre, 3, phi))


def test_a_constant_input_is_taken_out():
    before, x = train(6, 3), numbers(6, 200)
    x[2] = 0.7
    sites, centre, error = truncate(*before, grams=gram_matrices(powers(x)), max_error=0.0)
    assert error == 0.0
    torch.testing.assert_close(reference_outputs(sites, centre, 3, powers(x)), reference_outputs(*before, powers(x)))
    x[2] = torch.linspace(0, 1, 200)
    elsewhere = reference_outputs(sites, centre, 3, powers(x))
    x[2] = 0.7
    torch.testing.assert_close(elsewhere, reference_outputs(*before, powers(x)))


def test_nothing_is_truncated_to_nothing():
    before = train(4, 2)
    sites, centre, error = truncate(before.sites, torch.zeros_like(before.centre), 2, max_error=0.1)
    assert (error, float(centre.abs().max()), bonds_of(TensorTrain(sites, centre, 2))) == (0.0, 0.0, [1, 1, 1, 1])


def test_arguments_are_not_changed():
    before = train(4, 2)
    kept = [one.clone() for one in (*before.sites, before.centre)]
    truncate(*before, grams=gram_matrices(powers(numbers(4, 9))), bond_dim=1)
    balanced_truncation(*before, *state_moments(*before, powers(numbers(4, 9))), 1)
    assert all(torch.equal(one, was) for one, was in zip((*before.sites, before.centre), kept, strict=True))


# ---------------------------------------------------------------- balanced


@pytest.mark.parametrize("out_site", [0, 3, 6])
def test_moments_are_means_over_samples(out_site):
    before, phi = train(6, out_site), powers(numbers(6, 7))
    left, right = state_moments(*before, phi)
    tensors = [*before.sites[:out_site], before.centre, *before.sites[out_site:]]
    legs = [*phi[:out_site], None, *phi[out_site:]]
    for bond in range(1, 7):
        left_moment = torch.zeros(6, 6, dtype=torch.float64)
        right_moment = torch.zeros(6, 6, dtype=torch.float64)
        for sample, o in product(range(7), range(3)):
            matrices = [
                core[:, o] if leg is None else torch.einsum("k,lkr->lr", leg[:, sample], core)
                for core, leg in zip(tensors, legs, strict=True)
            ]
            left_state = torch.linalg.multi_dot([*matrices[:bond], torch.eye(6).double()])[0]
            right_state = torch.linalg.multi_dot([torch.eye(6).double(), *matrices[bond:]])[:, 0]
            left_moment += torch.outer(left_state, left_state)
            right_moment += torch.outer(right_state, right_state)
        for found, expected in ((left[bond - 1], left_moment), (right[bond - 1], right_moment)):
            torch.testing.assert_close(found / found.trace(), expected / expected.trace())


def test_balanced_keeps_the_function_where_nothing_is_cut():
    before, phi = train(6, 2), powers(numbers(6, 60))
    sites, centre = balanced_truncation(*before, *state_moments(*before, phi), 6)
    torch.testing.assert_close(
        reference_outputs(sites, centre, 2, phi), reference_outputs(*before, phi), rtol=1e-8, atol=1e-8
    )


def test_balanced_sees_correlations():
    base = numbers(1, 400)
    x = base + 0.02 * (numbers(8, 400, seed=3) - 0.5)  # all inputs are nearly one
    before, phi = train(8, 4, bond=8), powers(x)
    expected = reference_outputs(*before, phi)
    whitened = truncate(*before, grams=gram_matrices(phi), bond_dim=2)[:2]
    fitted = balanced_truncation(*before, *state_moments(*before, phi), 2)
    assert max(core.shape[2] for core in fitted[0]) == 2
    errors = [float((reference_outputs(*found, 4, phi) - expected).norm()) for found in (fitted, whitened)]
    assert errors[0] < 0.5 * errors[1]


# ---------------------------------------------------------------- the model, and what is refused


def test_a_measure_of_another_chain_is_refused():
    for n, d in ((5, 2), (4, 3)):
        with pytest.raises(ConfigError, match=re.escape(f"grams must be of shape (4, 2, 2), got ({n}, {d}, {d})")):
            truncate(*train(4, 2), grams=torch.eye(d, dtype=torch.float64).repeat(n, 1, 1), bond_dim=1)


@pytest.mark.parametrize("method", [truncate, balanced_truncation], ids=["truncate", "balanced"])
def test_periodic_chains_are_refused(method):
    model = MPS(4, 2, 2, boundary="periodic").double()
    rest = ([], [], 1) if method is balanced_truncation else ()
    limit = {} if method is balanced_truncation else {"bond_dim": 1}
    with pytest.raises(ConfigError, match="a truncation needs boundary='open'"):
        method(model.sites(), model.centre.detach(), 2, *rest, **limit)
