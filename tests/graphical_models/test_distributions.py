"""The distributions that torch lacks, against SciPy, NumPy and sums over the grid."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import logistic

from kdzoo.graphical_models import DiscretizedLogistic, distributions
from kdzoo.graphical_models.distributions import Delta, unexpand
from kdzoo.graphical_models.families import positive_scale

some = settings(max_examples=60, deadline=None, derandomize=True)


def grid_distribution(seed, bins):
    """Return three distributions on a grid with random locations and scales, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.rand(2, 3, generator=generator, dtype=torch.double)
    return distributions.DiscretizedLogistic(loc, 0.02 + 0.3 * scale, bins)


# ---------------------------------------------------------------- the logistic distribution on a grid


@given(
    st.floats(-50, 50),
    st.floats(-80, 80),
    st.sampled_from([2, 16, 256]),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_probabilities_of_a_grid_are_finite_and_sum_to_one(loc, raw, bins, dtype):
    distribution = DiscretizedLogistic((1,), bins=bins).distribution(torch.tensor([loc, raw], dtype=dtype))
    logs = distribution.log_probs()
    assert logs.shape == (1, bins)
    assert logs.isfinite().all()
    assert (logs <= 1e-6).all()
    # A location on the edge of two bins with a small scale amplifies the rounding of the edge by 1 / scale.
    rounding = torch.finfo(dtype).eps / float(distribution.scale)
    assert float(logs.logsumexp(-1)) == pytest.approx(0, abs=rounding + (1e-4 if dtype == torch.float32 else 1e-9))


@given(st.integers(0, 500))
@some
def test_probabilities_of_a_grid_are_differences_of_the_distribution_function(seed):
    raw = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    distribution = DiscretizedLogistic((3,), bins=8).distribution(raw)
    edges = (torch.arange(7, dtype=torch.double) + 0.5) / 7
    inner = ((edges - raw[:3, None]) / positive_scale(raw[3:])[:, None]).sigmoid()
    reached = torch.cat([torch.zeros(3, 1), inner, torch.ones(3, 1)], 1)
    torch.testing.assert_close(distribution.log_probs().exp(), reached.diff(dim=1), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(
        distribution.log_prob(distribution.grid[:, None]), distribution.log_probs().T, atol=1e-12, rtol=1e-12
    )


@given(st.integers(0, 500), st.sampled_from([2, 5, 256]))
@some
def test_masses_equal_differences_of_scipys_distribution_function(seed, bins):
    distribution = grid_distribution(seed, bins)
    edges = (np.arange(bins - 1) + 0.5) / (bins - 1)
    loc, scale = distribution.loc.numpy()[:, None], distribution.scale.numpy()[:, None]
    cumulative = np.concatenate([np.zeros((3, 1)), logistic.cdf(edges, loc, scale), np.ones((3, 1))], 1)
    np.testing.assert_allclose(distribution.log_probs().exp(), np.diff(cumulative, axis=1), atol=1e-12)


def test_a_mass_far_from_the_location_does_not_underflow():
    distribution = distributions.DiscretizedLogistic(torch.tensor(0.0), torch.tensor(0.001), 256)
    result = float(distribution.log_prob(torch.tensor(200 / 255)))
    # log(exp(-a) - exp(-b)) of the tails beyond both edges of the bin
    low, high = 199.5 / 255 / 0.001, 200.5 / 255 / 0.001
    assert result == pytest.approx(-low + np.log1p(-np.exp(low - high)), rel=1e-5)


@given(st.integers(0, 500), st.sampled_from([2, 5, 256]))
@some
def test_mean_and_variance_equal_sums_over_the_grid(seed, bins):
    distribution = grid_distribution(seed, bins)
    masses, grid = distribution.log_probs().exp().numpy(), np.arange(bins) / (bins - 1)
    np.testing.assert_allclose(distribution.mean, masses @ grid, atol=1e-12)
    np.testing.assert_allclose(distribution.variance, masses @ grid**2 - (masses @ grid) ** 2, atol=1e-12)


def test_samples_have_the_frequencies_of_the_masses():
    torch.manual_seed(0)
    distribution, n = grid_distribution(1, 4), 100_000
    values = distribution.sample((n,))
    assert values.shape == (n, 3)
    frequencies = torch.stack([values.isclose(value).double().mean(0) for value in distribution.grid], 1)
    masses = distribution.log_probs().exp()
    assert ((frequencies - masses).abs() <= 5 * (masses * (1 - masses) / n).sqrt() + 1e-6).all()


@given(st.integers(0, 500))
@some
def test_the_quantile_function_rises_along_the_grid(seed):
    distribution = grid_distribution(seed, 16)
    values = distribution.icdf(torch.linspace(0, 1, 101, dtype=torch.double)[:, None])
    assert (values.diff(dim=0) >= 0).all()
    assert torch.equal((values * 15).round() / 15, values)


# ---------------------------------------------------------------- the point mass


def test_a_point_mass_has_one_value_without_variance():
    value = torch.tensor([[1.0, -2.0, 0.5]])
    point = Delta(value)
    assert torch.equal(point.mean, value)
    assert torch.equal(point.variance, torch.zeros(1, 3))
    assert torch.equal(point.rsample((4,)), value.expand(4, 1, 3))
    assert point.log_prob(torch.tensor([1.0, 2.0, 0.5])).tolist() == [[0.0, -float("inf"), 0.0]]


def test_a_sample_of_a_point_mass_has_the_gradient_of_its_value():
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    Delta(value).rsample((3,)).sum().backward()
    assert value.grad.tolist() == [3.0, 3.0]


# ---------------------------------------------------------------- expanded tensors


@given(st.lists(st.booleans(), min_size=1, max_size=3))
@some
def test_unexpanded_tensors_hold_each_repeated_number_once(expanded):
    stored = torch.randn([1 if repeats else 2 for repeats in expanded])
    full = stored.expand([5 if repeats else 2 for repeats in expanded])
    assert torch.equal(unexpand(full), stored)
    assert torch.equal(unexpand(full).expand_as(full), full)


def test_tensors_that_are_not_expanded_stay_the_same():
    values = torch.randn(3, 4)
    assert torch.equal(unexpand(values), values)
