"""A mixture of normal distributions with equal weights and one deviation: its density, modes and exact denoiser.

Means are ``[modes, d]`` and points ``[n, d]``. What a perfect diffusion model of the mixture predicts is known in
closed form, so that samplers, trainings and distillations can be compared with it.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kdzoo.functional.diffusion import velocity

REACH = 3.0
"""Deviations from the nearest mean within which a sample is of high quality, as in Srivastava et al. 2017 (VEEGAN)."""


def mixture_log_density(
    points: Float[Tensor, "n d"], means: Float[Tensor, "k d"], deviation: float
) -> Float[Tensor, " n"]:
    """Return the log density of points in nats.

    Args:
        points: Points.
        means: Means of the components.
        deviation: Deviation of every component in every direction, > 0.

    Example:
        >>> density = mixture_log_density(torch.zeros(1, 2), torch.zeros(1, 2), 1.0).exp()
        >>> round(density.item() * 2 * math.pi, 4)
        1.0
    """
    squares = _squared_distances(points, means) / deviation**2
    constant = points.shape[1] * math.log(2 * math.pi * deviation**2) / 2 + math.log(len(means))
    return (-squares / 2).logsumexp(1) - constant


def exact_velocity(
    z: Float[Tensor, "n d"], angle: Float[Tensor, " n"], means: Float[Tensor, "k d"], deviation: float
) -> Float[Tensor, "n d"]:
    r"""Return the expected velocity of noisy samples of a mixture, which a perfect diffusion model predicts.

    A noisy sample of component i is normal with mean :math:`\cos\varphi\, \mu_i` and variance
    :math:`\cos^2\!\varphi\, s^2 + \sin^2\!\varphi`. Given z and i, the expectations of sample and noise are linear in
    z; they are averaged over the probabilities of the components given z, a softmax.

    Args:
        z: Noisy samples.
        angle: Their angles; see :mod:`kdzoo.functional.diffusion`.
        means: Means of the components.
        deviation: Deviation of every component, > 0.
    """
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    variance = (cos * deviation).square() + sin.square()
    centres = cos[..., None] * means  # [n, k, d]
    offsets = z[:, None] - centres
    probabilities = (-offsets.square().sum(2) / (2 * variance)).softmax(1)[..., None]
    sample = means + (cos * deviation**2 / variance)[..., None] * offsets
    noise = (sin / variance)[..., None] * offsets
    return velocity((probabilities * sample).sum(1), (probabilities * noise).sum(1), angle)


def mode_counts(points: Float[Tensor, "n d"], means: Float[Tensor, "k d"], deviation: float) -> Int[Tensor, " k"]:
    """Return the number of points of high quality at each mode: those within three deviations of their nearest mean.

    Args:
        points: Points.
        means: Means of the components.
        deviation: Deviation of every component, > 0.

    References:
        Srivastava, Valkov, Russell, Gutmann, Sutton: VEEGAN. NeurIPS 2017, section 5.
    """
    squares, nearest = _squared_distances(points, means).min(1)
    return nearest[squares <= (REACH * deviation) ** 2].bincount(minlength=len(means))


def histogram_divergence(counts: Int[Tensor, " k"]) -> float:
    """Return KL(histogram || uniform) in nats; log k, the largest value, if all counts are 0.

    Args:
        counts: Number of points at each mode.

    Example:
        >>> histogram_divergence(torch.tensor([5, 5]))
        0.0
    """
    if not int(counts.sum()):
        return math.log(len(counts))
    shares = counts.double() / counts.sum()
    return float(torch.special.xlogy(shares, shares * len(counts)).sum())


def _squared_distances(points: Tensor, means: Tensor) -> Tensor:
    """Return squared distances ``[n, k]``, without the cancellation of a product of matrices."""
    return (points[:, None] - means).square().sum(2)
