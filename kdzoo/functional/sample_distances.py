"""How far apart two sets of samples are, by their features: the metrics of generative models as functions.

All take features x [n, d] and y [m, d], n, m >= 2 unless said otherwise, and compute in float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.errors import DataError

Features = Float[Tensor, "n d"]
ROUNDING = 1e-13
"""Part of the squared lengths below which a squared distance is 0, and by which a ball is larger than its radius."""


def frechet_distance(x: Features, y: Float[Tensor, "m d"], *, squared: bool = True) -> Float[Tensor, ""]:
    r"""Return the Frechet distance of the normal distributions with the means and covariances of two samples.

    .. math:: \|\mu_x - \mu_y\|^2 + \operatorname{tr} C_x + \operatorname{tr} C_y
        - 2 \operatorname{tr}\,(C_x C_y)^{1/2}

    With centred samples X and Y the last trace is the sum of the singular values of X Y^T, divided by
    sqrt((n - 1)(m - 1)): it is real and differentiable, and right for fewer samples than dimensions.

    Args:
        x: Features (n, d).
        y: Features (m, d).
        squared: Whether to return the square, which is what is called FID with features of Inception; some papers
            print its root.

    References:
        Heusel et al.: GANs trained by a two time-scale update rule. NeurIPS 2017, arXiv:1706.08500, equation 6.

    Example:
        >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
        tensor(9., dtype=torch.float64)
    """
    x, y = checked(x, y)
    roots = [_root(one) for one in (x, y)]
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = sum(root.square().sum() for root in roots)
    value = ((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * overlap).clamp_min(0)
    return value if squared else value.sqrt()


def _root(x: Tensor) -> Tensor:
    """Return a matrix R of at most d rows with R^T R the covariance of the samples."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred).R if len(x) > x.shape[1] else centred


def kernel_distance(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the unbiased squared maximum mean discrepancy under the kernel (<a, b>/d + 1)^3; it may be negative.

    References:
        Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs. ICLR 2018, arXiv:1801.01401, section 4.

    Example:
        >>> kernel_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(7., dtype=torch.float64)
    """
    x, y = checked(x, y)
    within = [(one.sum() - one.trace()) / (len(one) * (len(one) - 1)) for one in (_cubic(x, x), _cubic(y, y))]
    return within[0] + within[1] - 2 * _cubic(x, y).mean()


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def mean_discrepancy(x: Features, y: Float[Tensor, "m d"], *, bandwidth: float = 1.0) -> Float[Tensor, ""]:
    """Return the maximum mean discrepancy under a Gaussian kernel: the root of its biased estimate.

    Args:
        x: Features (n, d), by whose mean squared distance the kernel is scaled.
        y: Features (m, d).
        bandwidth: Deviation of the kernel, in units of the root of that mean squared distance, > 0.

    References:
        Gretton et al.: A kernel two-sample test. JMLR 13, 2012, equation 5.
        Xu et al.: An empirical study on evaluation metrics of generative adversarial networks. arXiv:1806.07755, 2018.
    """
    x, y = checked(x, y)
    squares = [_distances(a, b).square() for a, b in ((x, x), (y, y), (x, y))]
    width = 2 * bandwidth**2 * squares[0].mean()
    if not width > 0:
        raise DataError("all features of the first sample are equal: they give a Gaussian kernel no width")
    kernels = [(-one / width).exp().mean() for one in squares]
    return (kernels[0] + kernels[1] - 2 * kernels[2]).clamp_min(0).sqrt()


def earth_movers_distance(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the Euclidean distance that mass moves on average when one sample is carried to the other; n, m >= 1.

    References:
        Rubner, Tomasi, Guibas: The earth mover's distance as a metric for image retrieval. IJCV 40, 2000.
    """
    import ot

    x, y = checked(x, y, least=1)
    cost = _distances(x, y)
    shares = [torch.full((len(one),), 1 / len(one), dtype=torch.float64) for one in (x, y)]
    return ot.emd2(*shares, cost, numItermax=10**7)


def nearest_neighbour_accuracy(x: Features, y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return how often the nearest other sample of the pooled two is of the same one: 1/2 for equal distributions.

    Ties count as guesses among the nearest.

    References:
        Lopez-Paz, Oquab: Revisiting classifier two-sample tests. ICLR 2017, arXiv:1610.06545.
    """
    x, y = checked(x, y)
    pooled = torch.cat([x, y])
    distances = _distances(pooled, pooled).fill_diagonal_(torch.inf)
    is_first = torch.arange(len(pooled)) < len(x)
    is_nearest = distances == distances.amin(1, keepdim=True)
    agrees = is_nearest & (is_first[:, None] == is_first)
    return (agrees.sum(1).double() / is_nearest.sum(1)).mean()


def precision_recall_density_coverage(
    real: Features, generated: Float[Tensor, "m d"], *, neighbours: int = 5
) -> dict[str, Float[Tensor, ""]]:
    """Return how well balls around samples cover the other sample.

    A sample's ball reaches to its k-th nearest neighbour in its own sample, the border included, so that a sample
    compared with itself has precision and recall 1.

    Args:
        real: Features (n, d), n > k.
        generated: Features (m, d), m > k.
        neighbours: k >= 1.

    Returns:
        ``precision``: share of generated samples in a ball of a real one. ``recall``: share of real samples in one of
        a generated one. ``density``: number of real balls in which a generated sample lies, divided by k, on average;
        it may exceed 1. ``coverage``: share of real balls that hold a generated sample.

    References:
        Kynkaanniemi et al.: Improved precision and recall metric for assessing generative models. arXiv:1904.06991.
        Naeem et al.: Reliable fidelity and diversity metrics for generative models. ICML 2020, arXiv:2002.09797.
    """
    real, generated = checked(real, generated, least=neighbours + 1)
    across = _distances(real, generated)
    radii = [_distances(one, one).kthvalue(neighbours + 1, dim=1).values * (1 + ROUNDING) for one in (real, generated)]
    in_real = across <= radii[0][:, None]
    in_generated = across <= radii[1]
    return {
        "precision": in_real.any(0).double().mean(),
        "recall": in_generated.any(1).double().mean(),
        "density": in_real.sum(0).double().mean() / neighbours,
        "coverage": in_real.any(1).double().mean(),
    }


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances [n, m]; rounding makes none of two rows that are equal."""
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    squares = lengths - 2 * a @ b.T
    return squares.where(squares > ROUNDING * lengths, 0.0).sqrt()


def checked(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Return two samples in float64.

    Raises:
        DataError: They are not matrices of as many columns, have fewer than ``least`` rows, or hold NaN or infinity.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        raise DataError(
            f"features must be [n, d] and [m, d] with n, m >= {least}, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise DataError("features must be finite, got NaN or infinity")
    return x.double(), y.double()
