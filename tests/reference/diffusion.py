"""Diffusion models in float64 NumPy, in the notation of the papers: alpha, sigma and the signal-to-noise ratio."""

import numpy as np

LOG_SNR_OF_NOISE = -10.0


def alpha_sigma(time):
    """The cosine schedule, alpha = cos(pi t / 2), ending where the log signal-to-noise ratio is -10."""
    last = np.arctan(np.exp(-LOG_SNR_OF_NOISE / 2)) * 2 / np.pi
    alpha = np.cos(np.pi / 2 * last * np.asarray(time, float))
    return alpha, np.sqrt(1 - alpha**2)


def ddim_step(z, noise, start, end):
    """Song, Meng & Ermon 2021, equation 12 with sigma = 0, for a predicted noise."""
    (alpha, sigma), (next_alpha, next_sigma) = alpha_sigma(start), alpha_sigma(end)
    return next_alpha * (z - sigma * noise) / alpha + next_sigma * noise


def noise_of_sample(z, sample, time):
    """The noise that belongs to a predicted sample."""
    alpha, sigma = alpha_sigma(time)
    return (z - alpha * sample) / sigma


def progressive_loss(predict_sample, student_sample, data, noise, time, steps):
    """Salimans & Ho 2022, algorithm 2 with its weight max(SNR, 1), for one sample.

    ``predict_sample`` is the teacher's prediction of the sample, ``student_sample`` that of the student, both given
    (z, time); ``steps`` is the student's number N.
    """
    alpha, sigma = alpha_sigma(time)
    z = alpha * data + sigma * noise
    middle, end = time - 0.5 / steps, time - 1 / steps
    z_middle = ddim_step(z, noise_of_sample(z, predict_sample(z, time), time), time, middle)
    z_end = ddim_step(z_middle, noise_of_sample(z_middle, predict_sample(z_middle, middle), middle), middle, end)
    end_alpha, end_sigma = alpha_sigma(end)
    ratio = end_sigma / sigma
    target = (z_end - ratio * z) / (end_alpha - ratio * alpha)
    weight = max((alpha / sigma) ** 2, 1.0)
    return weight * np.mean((target - student_sample(z, time)) ** 2)


def mixture_log_density(z, means, deviation, time):
    """Log density of a noisy sample ``[d]`` of a mixture of normal distributions with equal weights."""
    alpha, sigma = alpha_sigma(time)
    variance = alpha**2 * deviation**2 + sigma**2
    exponents = -np.sum((z - alpha * means) ** 2, 1) / (2 * variance)
    largest = exponents.max()
    constant = len(z) / 2 * np.log(2 * np.pi * variance) + np.log(len(means))
    return largest + np.log(np.exp(exponents - largest).sum()) - constant


def mixture_sample(z, means, deviation, time, step=1e-5):
    """The expected sample given z, by Tweedie's formula with a score from central differences of the log density."""
    alpha, sigma = alpha_sigma(time)
    units = np.eye(len(z)) * step
    score = np.array(
        [
            mixture_log_density(z + unit, means, deviation, time)
            - mixture_log_density(z - unit, means, deviation, time)
            for unit in units
        ]
    ) / (2 * step)
    return (z + sigma**2 * score) / alpha
