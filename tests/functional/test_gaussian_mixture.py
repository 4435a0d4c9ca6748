"""The exact denoiser of a mixture against Tweedie's formula with a numerical score, and the counts of modes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from kdzoo.functional.diffusion import cosine_angle, ddim, sample_from_velocity
from kdzoo.functional.gaussian_mixture import exact_velocity, histogram_divergence, mixture_log_density, mode_counts
from tests.reference import diffusion as reference

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.3, -1.2]], dtype=torch.float64)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_density_is_that_of_torch():
    parts = Independent(Normal(MEANS, torch.full_like(MEANS, 0.2)), 1)
    points = normal(0, 20, 2)
    expected = MixtureSameFamily(Categorical(torch.ones(3, dtype=torch.float64)), parts).log_prob(points)
    torch.testing.assert_close(mixture_log_density(points, MEANS, 0.2), expected)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1.0), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_exact_velocity_agrees_with_tweedies_formula(seed, time, deviation):
    z = normal(seed, 1, 2)
    angle = cosine_angle(torch.tensor([time], dtype=torch.float64))
    sample = sample_from_velocity(z, exact_velocity(z, angle, MEANS, deviation), angle)
    expected = reference.mixture_sample(z[0].numpy(), MEANS.numpy(), deviation, time)
    torch.testing.assert_close(sample[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_the_exact_velocity_is_finite_without_noise():
    assert exact_velocity(normal(0, 5, 2), torch.zeros(5, dtype=torch.float64), MEANS, 0.1).isfinite().all()


def test_the_sampler_with_the_exact_denoiser_draws_from_the_mixture():
    samples = ddim(lambda z, angle: exact_velocity(z, angle, MEANS, 0.1), normal(0, 3000, 2), 100)
    counts = mode_counts(samples, MEANS, 0.1)
    # 98.9 % of a normal distribution in the plane are within three deviations.
    assert int(counts.sum()) / 3000 > 0.97
    assert histogram_divergence(counts) < 0.002  # three deviations of a count of 1000 give 0.0016
    nearest = (samples[:, None] - MEANS).square().sum(2).argmin(1)
    for mode in range(3):
        assert samples[nearest == mode].std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.1)


def test_only_points_near_a_mode_are_counted():
    points = torch.stack([MEANS[0], MEANS[0] + 0.2, MEANS[2], torch.tensor([9.0, 9.0], dtype=torch.float64)])
    assert mode_counts(points, MEANS, 0.1).tolist() == [2, 0, 1]
    assert mode_counts(points, MEANS, 0.05).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([4, 4], 0.0),
        ([3, 0], math.log(2)),
        ([0, 0], math.log(2)),
        ([3, 1], 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
    ],
)
def test_the_divergence_from_equal_shares(counts, expected):
    assert histogram_divergence(torch.tensor(counts)) == pytest.approx(expected)
