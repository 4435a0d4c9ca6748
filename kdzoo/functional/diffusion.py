r"""The mathematics of diffusion models on the cosine schedule, in terms of an angle.

A sample ``x`` with noise ``e`` at the angle phi is ``z = cos(phi) x + sin(phi) e``. At phi = 0 it is the sample, at
phi = pi/2 the noise, and the signal-to-noise ratio (SNR) is ``cot(phi)^2``. A network predicts one of

=========  ==================================================
sample     ``x``
noise      ``e``
velocity   ``v = cos(phi) e - sin(phi) x``, the derivative of z
=========  ==================================================

given ``z``. Each of them determines the others. In this form a step of DDIM (Song et al. 2021, equation 12 without
noise) is a rotation of ``z`` and ``v`` (Salimans & Ho 2022, appendix D).

All functions take samples ``[batch, ...]`` and angles ``[batch]`` in radians.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_ANGLE = math.atan(math.exp(5.0))
"""The angle of the noise that sampling starts with: a log signal-to-noise ratio of -10. At pi/2 nothing is left of the
sample, and a network that predicts the noise says nothing about it; at -20 of Salimans & Ho 2022, which predict the
velocity, an error of such a network would be multiplied by 22,000, here by 148."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Predicts the velocity ``[batch, ...]`` from noisy samples ``[batch, ...]`` and angles ``[batch]``."""


def cosine_angle(time: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the angle of a time in [0, 1], on the cosine schedule (Nichol & Dhariwal 2021, equation 17 with s = 0).

    Args:
        time: 0 for samples without noise, 1 for noise.
    """
    return time * LARGEST_ANGLE


def diffuse(sample: Float[Tensor, " b *d"], noise: Float[Tensor, " b *d"], angle: Float[Tensor, " b"]) -> Tensor:
    """Return samples with noise, ``cos(angle) sample + sin(angle) noise`` (Ho et al. 2020, equation 4).

    Example:
        >>> diffuse(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0.0]))
        tensor([[1., 1.]])
    """
    cos, sin = _cos_sin(angle, sample)
    return cos * sample + sin * noise


def velocity(sample: Float[Tensor, " b *d"], noise: Float[Tensor, " b *d"], angle: Float[Tensor, " b"]) -> Tensor:
    """Return ``v = cos(angle) noise - sin(angle) sample`` (Salimans & Ho 2022, section 4)."""
    cos, sin = _cos_sin(angle, sample)
    return cos * noise - sin * sample


def sample_from_velocity(z: Float[Tensor, " b *d"], v: Float[Tensor, " b *d"], angle: Float[Tensor, " b"]) -> Tensor:
    """Return the sample ``x = cos(angle) z - sin(angle) v``; at the angle 0 it is z, whatever the velocity is."""
    cos, sin = _cos_sin(angle, z)
    return cos * z - sin * v


def noise_from_velocity(z: Float[Tensor, " b *d"], v: Float[Tensor, " b *d"], angle: Float[Tensor, " b"]) -> Tensor:
    """Return the noise ``e = sin(angle) z + cos(angle) v``."""
    cos, sin = _cos_sin(angle, z)
    return sin * z + cos * v


def velocity_from_noise(z: Float[Tensor, " b *d"], noise: Float[Tensor, " b *d"], angle: Float[Tensor, " b"]) -> Tensor:
    """Return the velocity that belongs to a predicted noise, for angles below pi/2."""
    cos, sin = _cos_sin(angle, z)
    return (noise - sin * z) / cos


def rotate(z: Float[Tensor, " b *d"], v: Float[Tensor, " b *d"], by: Float[Tensor, " b"]) -> Tensor:
    """Return z after a DDIM step from an angle to a smaller one, ``cos(by) z - sin(by) v``.

    Args:
        z: Noisy samples.
        v: Their velocities.
        by: The first angle minus the second one.

    References:
        Salimans & Ho 2022, appendix D. It equals ``cos(s) x + sin(s) e`` with the predicted sample and noise
        (Song, Meng & Ermon 2021, equation 12 with sigma = 0).
    """
    cos, sin = _cos_sin(by, z)
    return cos * z - sin * v


def chord_velocity(z: Float[Tensor, " b *d"], end: Float[Tensor, " b *d"], by: Float[Tensor, " b"]) -> Tensor:
    """Return the velocity with which one DDIM step leads from z to ``end``: the inverse of :func:`rotate`.

    Several steps of a teacher have such a velocity, which is what a student with longer steps has to predict. It
    belongs to the sample of Salimans & Ho 2022, algorithm 2 and appendix G.

    Args:
        z: Noisy samples at the start of the step.
        end: Noisy samples at its end.
        by: The first angle minus the second one, > 0.
    """
    cos, sin = _cos_sin(by, z)
    return (cos * z - end) / sin


def truncated_snr_weight(angle: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the factor on squared errors of v that weights those of x by max(SNR, 1), ``[batch]`` in [1/2, 1].

    An error of v is ``sin(angle)`` times as large in x, so that the factor ``max(cot^2, 1) sin^2`` is
    ``max(cos^2, sin^2)``, which is finite without noise too.

    References:
        Salimans & Ho 2022, equation 9.
    """
    return torch.maximum(angle.cos().square(), angle.sin().square())


def ddim(
    predict: Velocity,
    z: Float[Tensor, " b *d"],
    steps: int,
    start: Float[Tensor, " b"] | None = None,
    end: Float[Tensor, " b"] | None = None,
) -> Tensor:
    """Return noisy samples at a later time by the deterministic sampler DDIM, in steps of equal time.

    Args:
        predict: Predicts velocities.
        z: Noisy samples at the first time, by default standard normal noise.
        steps: Number of steps, >= 1; ``predict`` is called once in each.
        start: First times, in [0, 1]; None: 1, noise.
        end: Last times, at most the first ones; None: 0, samples.

    Example:
        >>> ddim(lambda z, angle: torch.zeros_like(z), torch.ones(1, 1), 1) < 0.01  # the angle has rotated z to 0
        tensor([[True]])

    References:
        Song, Meng, Ermon: Denoising diffusion implicit models. ICLR 2021.
    """
    start = z.new_ones(len(z)) if start is None else start
    end = z.new_zeros(len(z)) if end is None else end
    angles = [cosine_angle(torch.lerp(start, end, step / steps)) for step in range(steps + 1)]
    for before, after in pairwise(angles):
        z = rotate(z, predict(z, before), before - after)
    return z


def per_sample_error(predicted: Float[Tensor, " b *d"], target: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """Return the squared error of each sample, the mean over its values."""
    return (predicted - target).square().flatten(1).mean(1)


def _cos_sin(angle: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of angles ``[batch]`` in the shape of samples."""
    angle = angle.reshape(-1, *[1] * (like.ndim - 1))
    return angle.cos(), angle.sin()
