"""Sobol indices against the definition on every point of a small product measure, and against Monte Carlo."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.models import MPS
from kdzoo.tensor_networks.features import CosSin, Legendre, Polynomial
from kdzoo.tensor_networks.sobol import Moments, feature_moments, pairwise_indices, rescaled, scaled, sobol_indices

MAPS = {
    "powers": Polynomial(1),
    "cubes": Polynomial(3),
    "cos_sin": CosSin(2),
    "legendre": Legendre(2),
}


def chain(n, d, m, outputs=2, bond=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    bonds = [1, *torch.randint(1, bond + 1, (n,), generator=generator).tolist(), 1]  # n + 2 with the output's

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    tensors = [normal(bonds[i], outputs if i == m else d, bonds[i + 1]) for i in range(n + 1)]
    return [*tensors[:m], *tensors[m + 1 :]], tensors[m], m


def outputs_of(sites, centre, m, phi):
    """The chain's outputs (samples, outputs) of features (sites, d, samples)."""
    left = right = torch.ones(1, phi.shape[2], dtype=torch.float64)
    for i in range(m):
        left = torch.einsum("ls,ldr,ds->rs", left, sites[i], phi[i])
    for i in reversed(range(m, len(sites))):
        right = torch.einsum("ldr,ds,rs->ls", sites[i], phi[i], right)
    return torch.einsum("ls,lor,rs->so", left, centre, right)


def grid(n, points, seed=0):
    """Values (sites, points) of a product measure of equally likely values, and all points (sites, points^n)."""
    values = torch.rand(n, points, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    at = torch.cartesian_prod(*[torch.arange(points)] * n).reshape(-1, n).T
    return values, values.gather(1, at)


def by_definition(f, n, points):
    """Variances by the definition, from the outputs on the whole grid: of every set of at most two inputs, and total.

    f: (points, ..., points, outputs).
    """
    axes = set(range(n))
    mean = f.mean(tuple(axes))

    def explained(subset):
        rest = tuple(axes - set(subset))
        conditional = f.mean(rest) if rest else f
        return (conditional - mean).square().flatten(0, -2).mean(0)

    variance = explained(axes)
    first = torch.stack([explained({i}) for i in range(n)], -1)
    total = torch.stack([variance - explained(axes - {i}) if n > 1 else variance for i in range(n)], -1)
    pairs = {(i, j): explained({i, j}) - first[:, i] - first[:, j] for i, j in combinations(range(n), 2)}
    return mean, variance, first, total, pairs


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("n", "m"), [(1, 0), (1, 1), (2, 1), (4, 2), (4, 0), (4, 4), (5, 2)])
def test_indices_are_those_of_the_definition(name, n, m):
    tensors = chain(n, MAPS[name].d, m, seed=n + m)
    values, points = grid(n, 4)
    f = outputs_of(*tensors, MAPS[name].features(points)).unflatten(0, (4,) * n)
    mean, variance, first, total, pairs = by_definition(f, n, 4)
    measure = feature_moments(MAPS[name].features(values))
    found = sobol_indices(*tensors, measure)
    together = pairwise_indices(*tensors, measure)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(found.mean, mean, **close)
    torch.testing.assert_close(found.variance, variance, **close)
    torch.testing.assert_close(found.first, first / variance[:, None], **close)
    torch.testing.assert_close(found.total, total / variance[:, None], **close)
    for i, j in pairs:
        torch.testing.assert_close(together[:, i, j], pairs[i, j] / variance, **close)
    assert torch.equal(together, together.mT)
    assert not together.diagonal(dim1=1, dim2=2).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 1000))
def test_shares_are_shares(n, m, seed):
    tensors = chain(n, 2, min(n, m), seed=seed)
    measure = feature_moments(MAPS["powers"].features(grid(n, 3, seed)[0]))
    found = sobol_indices(*tensors, measure)
    together = pairwise_indices(*tensors, measure)
    assert bool((found.first >= 0).all())
    assert bool((together >= 0).all())
    assert bool((found.total >= found.first - 1e-12).all())
    assert bool((found.first.sum(1) + together.sum((1, 2)) / 2 <= 1 + 1e-9).all())
    assert bool((found.total.sum(1) >= 1 - 1e-9).all())
    reached = found.first + together.sum(2)
    assert bool((reached <= found.total + 1e-9).all())


def test_chosen_pairs_are_those_of_all():
    tensors = chain(6, 3, 3)
    measure = feature_moments(MAPS["legendre"].features(grid(6, 5)[0]))
    among = [4, 0, 5, 1]
    whole = pairwise_indices(*tensors, measure)
    torch.testing.assert_close(pairwise_indices(*tensors, measure, among), whole[:, among][:, :, among])


def test_monte_carlo_agrees_within_three_standard_errors():
    """Pick-and-freeze estimates, Saltelli et al. 2010, table 2, with batches for their standard errors."""
    torch.manual_seed(0)
    n, batches, samples = 8, 40, 5000
    model = MPS(n, 2, 4, noise=2.0, engine="sweep").double()
    phi = model.feature_map(torch.rand(n, 200, dtype=torch.float64))
    found = sobol_indices(model.sites(), model.centre.detach(), model.out_site, feature_moments(phi))

    def drawn():
        return phi.gather(2, torch.randint(200, (n, 1, batches * samples)).expand(-1, 2, -1))

    def f(features):
        out = outputs_of(model.sites(), model.centre.detach(), model.out_site, features)
        return out.T.reshape(2, batches, samples)

    one, other = drawn(), drawn()
    of_one, of_other = f(one), f(other)
    estimates = {"mean": (of_one.mean(2), found.mean), "variance": (of_one.var(2), found.variance)}
    scale = found.variance[:, None]
    for i in range(n):
        mixed = one.clone()
        mixed[i] = other[i]
        of_mixed = f(mixed)
        first = ((of_other - found.mean[:, None, None]) * (of_mixed - of_one)).mean(2) / scale
        total = (of_one - of_mixed).square().mean(2) / 2 / scale
        estimates |= {f"first {i}": (first, found.first[:, i]), f"total {i}": (total, found.total[:, i])}
    deviations = [
        ((batch.mean(1) - exact) / (batch.std(1) / batches**0.5)).abs().max().item()
        for batch, exact in estimates.values()
    ]
    assert max(deviations) < 3


def test_an_additive_chain_has_no_interaction():
    """x_0 + 2 x_1: a quarter of the variance of the second in the first, whatever the measure's scale."""
    left = torch.tensor([[[1.0, 0], [0, 1]]], dtype=torch.float64)  # (1, x_0)
    right = torch.tensor([[[1.0], [0]], [[0], [2]]], dtype=torch.float64)  # (1, 2 x_1)
    sites, centre = [left, right], torch.tensor([[[0.0, 1]], [[1, 0]]], dtype=torch.float64)
    mean, variance = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 1.0])
    measure = Moments(
        torch.stack([torch.ones(2), mean], 1).double(),
        torch.diag_embed(torch.tensor([[0, v] for v in variance.tolist()])).double(),
    )
    found = sobol_indices(sites, centre, 1, measure)
    assert found.mean.item() == pytest.approx(0.3 - 4)
    assert found.variance.item() == pytest.approx(5)
    assert found.first[0].tolist() == pytest.approx([0.2, 0.8])
    torch.testing.assert_close(found.first, found.total)
    assert pairwise_indices(sites, centre, 1, measure).abs().max() < 1e-15


def test_a_constant_chain_has_no_shares():
    sites, centre, m = chain(4, 2, 2)
    for core in sites:
        core[:, 1] = 0
    measure = feature_moments(MAPS["powers"].features(grid(4, 3)[0]))
    found = sobol_indices(sites, centre, m, measure)
    assert not found.variance.any()
    assert not found.first.any()
    assert not found.total.any()
    assert not pairwise_indices(sites, centre, m, measure).any()


def test_inputs_that_never_change_have_no_shares():
    tensors = chain(3, 2, 1)
    found = sobol_indices(
        *tensors, feature_moments(MAPS["powers"].features(torch.full((3, 7), 0.1, dtype=torch.float64)))
    )
    assert not found.variance.any()
    assert not found.total.any()


def test_a_long_chain_is_finite_at_any_scale():
    n = 784
    torch.manual_seed(0)
    model = MPS(n, 3, 8)
    rest = (
        model.centre.detach(),
        model.out_site,
        feature_moments(model.feature_map(torch.rand(n, 50, dtype=torch.float64))),
    )
    to_container = sobol_indices(model.sites(), *rest)
    for factor in (1e-3, 1e3):  # the chain is about 1e-2352 and 1e2352
        sites = [factor * core for core in model.sites()]
        found = sobol_indices(sites, *rest)
        torch.testing.assert_close(found.first, to_container.first)
        torch.testing.assert_close(found.total, to_container.total)
        together = pairwise_indices(sites, *rest, [0, 391, 392, 783])
        torch.testing.assert_close(together, pairwise_indices(model.sites(), *rest, [0, 391, 392, 783]))


def test_rescaled_cores_are_the_chain():
    sites, centre, m = chain(6, 2, 3)
    phi = MAPS["powers"].features(torch.rand(6, 9, dtype=torch.float64))
    cores, exponent = rescaled([1e3 * core for core in sites], m, phi @ phi.mT / 9)
    expected = 1e18 * outputs_of(sites, centre, m, phi)
    torch.testing.assert_close(scaled(outputs_of(cores, centre, m, phi), exponent), expected)


def test_another_number_of_sites_is_refused():
    measure = feature_moments(torch.rand(3, 2, 5))
    with pytest.raises(ConfigError, match="moments of 3 sites with 2 features, the chain has 4 with 2"):
        sobol_indices(*chain(4, 2, 2), measure)


@pytest.mark.parametrize(
    ("among", "line"),
    [([1, 1], "among must hold every site once"), ([4], r"in 0\.\.3, got 4")],
    ids=["twice", "outside"],
)
def test_unknown_sites_are_refused(among, line):
    measure = feature_moments(torch.rand(4, 2, 5))
    with pytest.raises(ConfigError, match=line):
        pairwise_indices(*chain(4, 2, 2), measure, among)
