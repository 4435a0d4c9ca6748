"""Scores of generated samples against real ones, as plain numbers by the names of a report.

The mathematics is in :mod:`kdzoo.functional.sample_distances`. All functions take features of real samples
``[n, d]`` and of generated samples ``[m, d]``.
"""

import torch
from torch import Tensor

from kdzoo.functional import sample_distances
from kdzoo.functional.gaussian_mixture import histogram_divergence

# Resamples of the bootstrap. The ends of a 95 % interval then depend on the two or three most extreme ones: good enough
# to see whether two models can be told apart, and cheap, since each resample needs a Frechet distance.
RESAMPLES = 100


def frechet(real: Tensor, generated: Tensor) -> float:
    """Return the root of the squared Frechet distance, as Chen et al. 2023 print it."""
    return float(sample_distances.frechet_distance(real, generated, squared=False))


def distances(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the four distances that Chen et al. 2023 print.

    References:
        Xu et al. 2018, An empirical study on evaluation metrics of generative adversarial networks.
    """
    return {
        "frechet": frechet(real, generated),
        "emd": float(sample_distances.earth_movers_distance(real, generated)),
        "mmd": float(sample_distances.mean_discrepancy(real, generated)),
        "one_nn": one_nn(real, generated),
    }


def one_nn(real: Tensor, generated: Tensor) -> float:
    """Return the accuracy with which the nearest neighbour separates real from generated samples; 0.5 is ideal."""
    return float(sample_distances.nearest_neighbour_accuracy(real, generated))


def further_distances(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the scores that other papers print: FID, KID, precision, recall, density and coverage."""
    neighbourhoods = sample_distances.precision_recall_density_coverage(real, generated)
    return {
        "frechet_squared": float(sample_distances.frechet_distance(real, generated)),
        "kid": float(sample_distances.kernel_distance(real, generated)),
        **{name: float(value) for name, value in neighbourhoods.items()},
    }


def modes(counts: Tensor, n: int) -> dict[str, float]:
    """Return the number of modes that have a sample, the divergence of their shares from equal ones, and their share.

    Args:
        counts: Number of samples at each mode, int64 ``[modes]``.
        n: Number of all samples.
    """
    return {
        "modes": float((counts > 0).sum()),
        "mode_kl": histogram_divergence(counts),
        "mode_share": int(counts.sum()) / n,
    }


def frechet_interval(real: Tensor, generated: Tensor, resamples: int = RESAMPLES) -> dict[str, float]:
    """Return the ends of the 95 % bootstrap interval of the Frechet distance.

    Args:
        real: Features of real samples, ``[n, d]``.
        generated: Features of generated samples, ``[m, d]``.
        resamples: Number of resamples, >= 2.
    """
    # A fixed seed: the interval is a function of the samples, so that a report can be reproduced.
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(resamples):
        rows = [torch.randint(len(samples), (len(samples),), generator=generator) for samples in (real, generated)]
        values.append(frechet(real[rows[0]], generated[rows[1]]))
    spread = torch.tensor(values, dtype=torch.float64)
    # Resampled sets have repeated rows and are farther apart than the sets themselves, so the interval is moved.
    spread += frechet(real, generated) - spread.mean()
    low, high = spread.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return {"frechet_low": float(low), "frechet_high": float(high)}
