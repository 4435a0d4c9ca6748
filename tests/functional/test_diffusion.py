"""The mathematics of diffusion models against a NumPy reference in the papers' notation, and its properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.functional import diffusion
from tests.reference import diffusion as reference

some = settings(max_examples=40, deadline=None, derandomize=True)
seeds, times = st.integers(0, 2**32 - 1), st.floats(0.01, 1.0)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angle_of(time):
    return diffusion.cosine_angle(torch.tensor([time], dtype=torch.float64))


def close(result, expected, **tolerances):
    torch.testing.assert_close(
        result, torch.as_tensor(expected, dtype=torch.float64), **{"rtol": 1e-9, "atol": 1e-11, **tolerances}
    )


def test_the_schedule_goes_from_samples_to_noise():
    angles = diffusion.cosine_angle(torch.tensor([0.0, 1.0], dtype=torch.float64))
    close(angles.tan().square().log()[1], 10.0)
    assert angles[0] == 0
    assert angles[1] < math.pi / 2


@given(seeds, times)
@some
def test_all_predictions_determine_each_other(seed, time):
    sample, noise, angle = normal(seed, 1, 3), normal(seed ^ 1, 1, 3), angle_of(time)
    alpha, sigma = reference.alpha_sigma(time)
    z, v = diffusion.diffuse(sample, noise, angle), diffusion.velocity(sample, noise, angle)
    close(z, alpha * sample.numpy() + sigma * noise.numpy())
    close(diffusion.sample_from_velocity(z, v, angle), sample)
    close(diffusion.noise_from_velocity(z, v, angle), noise)
    close(diffusion.velocity_from_noise(z, noise, angle), v, rtol=1e-7)


@given(seeds, times, st.floats(0.0, 0.99))
@some
def test_a_step_is_that_of_ddim_and_its_chord_is_its_inverse(seed, start, share):
    sample, noise, end = normal(seed, 1, 3), normal(seed ^ 1, 1, 3), share * start
    first, last = angle_of(start), angle_of(end)
    z, v = diffusion.diffuse(sample, noise, first), diffusion.velocity(sample, noise, first)
    reached = diffusion.rotate(z, v, first - last)
    close(reached, reference.ddim_step(z.numpy(), noise.numpy(), start, end), rtol=1e-7, atol=1e-8)
    close(reached, diffusion.diffuse(sample, noise, last))
    close(diffusion.chord_velocity(z, reached, first - last), v, rtol=1e-7, atol=1e-7)


@given(seeds, st.integers(1, 9))
@some
def test_the_sampler_is_exact_for_one_sample_whatever_its_steps_are(seed, steps):
    # If all data are one sample, the noise is known at every z: the path is an arc, which every step follows.
    sample, noise = normal(seed, 2, 3), normal(seed ^ 1, 2, 3)
    angles = []

    def predict(z, angle):
        angles.append(float(angle[0]))
        return (angle.cos()[:, None] * z - sample) / angle.sin()[:, None]

    z = diffusion.diffuse(sample, noise, angle_of(1.0).expand(2))
    close(diffusion.ddim(predict, z, steps), sample)
    assert angles == pytest.approx([diffusion.LARGEST_ANGLE * (steps - i) / steps for i in range(steps)])


def test_the_sampler_between_two_times_continues_one_that_stops_there():
    torch.manual_seed(0)
    weight = normal(2, 3, 3)

    def predict(z, angle):
        return (z @ weight).tanh() * angle[:, None]

    noise, half = normal(0, 4, 3), torch.full((4,), 0.5, dtype=torch.float64)
    middle = diffusion.ddim(predict, noise, 2, end=half)
    close(diffusion.ddim(predict, middle, 2, start=half), diffusion.ddim(predict, noise, 4))


@given(times)
@some
def test_the_weight_of_velocities_is_that_of_samples(time):
    alpha, sigma = reference.alpha_sigma(time)
    close(diffusion.truncated_snr_weight(angle_of(time))[0], max((alpha / sigma) ** 2, 1) * sigma**2, rtol=1e-7)


def test_without_noise_a_prediction_of_the_sample_is_the_noisy_sample_itself():
    z, v = normal(0, 2, 1, 4, 4), 1e6 * normal(1, 2, 1, 4, 4)
    assert torch.equal(diffusion.sample_from_velocity(z, v, torch.zeros(2, dtype=torch.float64)), z)


def test_errors_are_means_over_the_values_of_a_sample():
    target = torch.stack([torch.ones(1, 2, 2), 3 * torch.ones(1, 2, 2)])
    assert diffusion.per_sample_error(torch.ones(2, 1, 2, 2), target).tolist() == [0.0, 4.0]
