"""Distances between two sets of samples by their features: the metrics of generative models as pure functions.

Unless said otherwise, the arguments are features ``x`` ``[n, d]`` and ``y`` ``[m, d]`` with n, m >= 2, and the
computation is in float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import DataError

Features = Float[Tensor, "n d"]

# Distances that differ by less than this share are equal: features are often rounded to float32, such as pixels that
# were normalised, and points at one distance must not be told apart by that.
TIES = 1e-6


def frechet_distance(x: Features, y: Float[Tensor, "m d"], *, squared: bool = True) -> Float[Tensor, ""]:
    r"""Return the Frechet distance of the normal distributions with the means and covariances of two samples.

    .. math:: \|\mu_x - \mu_y\|^2 + \operatorname{tr} C_x + \operatorname{tr} C_y
        - 2 \operatorname{tr}\,(C_x C_y)^{1/2}

    With centred samples X and Y, the last trace is the sum of the singular values of :math:`X Y^\top`, divided by
    :math:`\sqrt{(n - 1)(m - 1)}`. In contrast to a matrix square root, this is real and differentiable, and correct
    for fewer samples than dimensions.

    Args:
        x: Features, ``[n, d]``.
        y: Features, ``[m, d]``.
        squared: Whether to return the formula above, which with features of Inception is called FID, or its root,
            which some papers print.

    Returns:
        A float64 number >= 0.

    Raises:
        DataError: If the features are not two matrices of as many columns and two or more rows, or not finite.

    References:
        Heusel et al.: GANs trained by a two time-scale update rule. NeurIPS 2017, arXiv:1706.08500, equation 6.

    Example:
        >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
        tensor(9., dtype=torch.float64)
    """
    x, y = _centred(*validated(x, y))
    x_root, y_root = _covariance_root(x), _covariance_root(y)
    overlap = torch.linalg.svdvals(x_root @ y_root.T).sum()
    traces = x_root.square().sum() + y_root.square().sum()
    # Equal samples may come out as -1e-15 by rounding.
    value = ((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * overlap).clamp_min(0)
    return value if squared else value.sqrt()


def _covariance_root(x: Tensor) -> Tensor:
    """Return a matrix R of at most d rows such that R^T R is the covariance of the samples."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    # With more samples than dimensions, the R of a QR decomposition has the same R^T R and only d rows.
    return torch.linalg.qr(centred).R if len(x) > x.shape[1] else centred


def kernel_distance(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the unbiased squared maximum mean discrepancy under the kernel (<a, b> / d + 1)^3, called KID.

    Args:
        x: Features, ``[n, d]``.
        y: Features, ``[m, d]``.

    Returns:
        A float64 number, whose expectation is 0 for equal distributions; it may be negative.

    Raises:
        DataError: If the features are not two matrices of as many columns and two or more rows, or not finite.

    References:
        Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs. ICLR 2018, arXiv:1801.01401, section 4.

    Example:
        >>> kernel_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(7., dtype=torch.float64)
    """
    x, y = validated(x, y)
    return _mean_of_pairs(_cubic_kernel(x, x)) + _mean_of_pairs(_cubic_kernel(y, y)) - 2 * _cubic_kernel(x, y).mean()


def _cubic_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return the polynomial kernel of all pairs, ``[n, m]``."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(kernel: Tensor) -> Tensor:
    """Return the mean over pairs of different samples: without the diagonal the estimate is unbiased."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def mean_discrepancy(x: Features, y: Float[Tensor, "m d"], *, bandwidth: float = 1.0) -> Float[Tensor, ""]:
    r"""Return the maximum mean discrepancy under a Gaussian kernel: the root of its biased estimate.

    .. math:: \kappa(a, b) = \exp \Bigl(-\frac{\|a - b\|^2}{2 \beta^2 D}\Bigr), \qquad
        \Bigl(\overline{\kappa(x, x)} + \overline{\kappa(y, y)} - 2\, \overline{\kappa(x, y)}\Bigr)^{1/2}

    with D the mean squared distance of all pairs of rows of ``x``.

    Args:
        x: Features, ``[n, d]``, which set the scale of the kernel.
        y: Features, ``[m, d]``.
        bandwidth: The factor beta > 0: standard deviation of the kernel, in units of the root of D.

    Returns:
        A float64 number >= 0.

    Raises:
        DataError: If the features are not two matrices of as many columns and two or more rows, or not finite, or if
            all rows of ``x`` are equal.

    References:
        Gretton et al.: A kernel two-sample test. JMLR 13, 2012, equation 5.
        Xu et al.: An empirical study on evaluation metrics of generative adversarial networks. arXiv:1806.07755, 2018.
    """
    x, y = _centred(*validated(x, y))
    squares = [_distances(a, b).square() for a, b in ((x, x), (y, y), (x, y))]
    width = 2 * bandwidth**2 * squares[0].mean()
    if not width > 0:
        raise DataError("all features of the first sample are equal: they give a Gaussian kernel no width")
    kernels = [(-square / width).exp().mean() for square in squares]
    return (kernels[0] + kernels[1] - 2 * kernels[2]).clamp_min(0).sqrt()


def earth_movers_distance(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the mean Euclidean distance by which an optimal transport plan moves one sample to the other.

    Args:
        x: Features, ``[n, d]``, n >= 1.
        y: Features, ``[m, d]``, m >= 1.

    Returns:
        A float64 number >= 0.

    Raises:
        DataError: If the features are not two matrices of as many columns and one or more rows, or not finite.

    References:
        Rubner, Tomasi, Guibas: The earth mover's distance as a metric for image retrieval. IJCV 40, 2000.
    """
    import ot  # slow to import, and needed by this function alone

    x, y = _centred(*validated(x, y, least=1))
    cost = _distances(x, y)
    # POT compares costs with fixed tolerances, which are meant for costs of about 1.
    scale = cost.detach().max()
    if scale == 0:
        return cost.sum()
    x_mass, y_mass = (torch.full((len(sample),), 1 / len(sample), dtype=torch.float64) for sample in (x, y))
    # POT's default limit of 1e5 iterations of the network simplex is too low for thousands of samples.
    return scale * ot.emd2(x_mass, y_mass, cost / scale, numItermax=10**7)


def nearest_neighbour_accuracy(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the leave-one-out accuracy of a nearest-neighbour classifier that distinguishes the two samples.

    It is about 1/2 for equal distributions and 1 for samples that lie apart. Below 1/2, samples come in pairs, such as
    copies of the data. Of several nearest neighbours at one distance, each counts by its share.

    Args:
        x: Features, ``[n, d]``.
        y: Features, ``[m, d]``.

    Returns:
        A float64 number in [0, 1].

    Raises:
        DataError: If the features are not two matrices of as many columns and two or more rows, or not finite.

    References:
        Lopez-Paz, Oquab: Revisiting classifier two-sample tests. ICLR 2017, arXiv:1610.06545.
    """
    x, y = _centred(*validated(x, y))
    pooled = torch.cat([x, y])
    distances = _distances(pooled, pooled).fill_diagonal_(torch.inf)  # a sample is not its own neighbour
    is_first = torch.arange(len(pooled)) < len(x)
    is_nearest = distances <= distances.amin(1, keepdim=True) * (1 + TIES)
    agrees = is_nearest & (is_first[:, None] == is_first)
    return (agrees.sum(1).double() / is_nearest.sum(1)).mean()


def precision_recall_density_coverage(
    real: Features, generated: Float[Tensor, "m d"], *, neighbours: int = 5
) -> dict[str, Float[Tensor, ""]]:
    """Return how well balls around the samples of one set cover the other set.

    The ball of a sample reaches to its k-th nearest neighbour in its own set, border included, so that a set compared
    with itself has precision and recall 1.

    Args:
        real: Features of the data, ``[n, d]``, n > k.
        generated: Features of generated samples, ``[m, d]``, m > k.
        neighbours: The number k >= 1; 5 as in Naeem et al.

    Returns:
        ``precision``: share of generated samples in a ball of a real one. ``recall``: share of real samples in a ball
        of a generated one. ``density``: number of real balls in which a generated sample lies, divided by k, on
        average; it may exceed 1. ``coverage``: share of real balls that hold a generated sample.

    Raises:
        DataError: If the features are not two matrices of as many columns and k + 1 or more rows, or not finite.

    References:
        Kynkaanniemi et al.: Improved precision and recall metric for assessing generative models. arXiv:1904.06991.
        Naeem et al.: Reliable fidelity and diversity metrics for generative models. ICML 2020, arXiv:2002.09797.
    """
    real, generated = _centred(*validated(real, generated, least=neighbours + 1))
    across = _distances(real, generated)
    in_real = across <= _ball_radii(real, neighbours)[:, None]
    in_generated = across <= _ball_radii(generated, neighbours)
    return {
        "precision": in_real.any(0).double().mean(),
        "recall": in_generated.any(1).double().mean(),
        "density": in_real.sum(0).double().mean() / neighbours,
        "coverage": in_real.any(1).double().mean(),
    }


def _ball_radii(x: Tensor, neighbours: int) -> Tensor:
    """Return the distance of every sample to its k-th nearest neighbour, enlarged so that the border is inside."""
    # The smallest distance of a sample is 0, to itself: the k-th neighbour has the (k + 1)-th smallest distance.
    return _distances(x, x).kthvalue(neighbours + 1, dim=1).values * (1 + TIES)


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets moved by the mean of the first one, which changes no distance."""
    # A large common part of all features would take away the digits by which they differ.
    shift = x.detach().mean(0)
    return x - shift, y - shift


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, ``[n, m]``."""
    # By differences: |a|^2 - 2 ab + |b|^2 is faster, but cancels where points are closer to each other than to 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def validated(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Return two sets of features in float64, or reject them.

    Args:
        x: Features, ``[n, d]``.
        y: Features, ``[m, d]``.
        least: Smallest allowed number of rows.

    Raises:
        DataError: If they are not matrices of as many columns, have fewer than ``least`` rows, or hold NaN or infinity.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        raise DataError(
            f"features must be [n, d] and [m, d] with n, m >= {least}, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise DataError("features must be finite, got NaN or infinity")
    return x.double(), y.double()
