"""k-means of the features of prefixes: the fine clustering before merging, and a baseline."""

import warnings
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.validation import choice, integer
from kdzoo.errors import ConfigError

# Distances that are held at once: 64 MB in float32, so that memory does not grow with points times centres.
BLOCK = 1 << 24

INITS = ("k-means++", "random")


def kmeans_labels(
    points: Tensor,
    n_clusters: int,
    *,
    init: str = "k-means++",
    n_init: int = 1,
    max_iter: int = 100,
    sample: int = 100_000,
    seed: int = 0,
) -> Tensor:
    """Return the cluster of each point by Lloyd's algorithm, none of them empty.

    Args:
        points: The points ``[N, d]``.
        n_clusters: Number of clusters K, at most the number of points; fewer are returned if fewer points differ.
        init: "k-means++" or "random" (K points as first centres).
        n_init: Number of restarts, >= 1; the result with the lowest inertia is returned.
        max_iter: Maximum number of steps of Lloyd's algorithm, >= 1.
        sample: Maximum number of points that centres are fitted to, drawn without replacement, >= 1.
        seed: Seed of the draws.

    Returns:
        The cluster of each point, int64 ``[N]`` in 0..K-1 without gaps.

    Raises:
        ConfigError: If an argument is out of range, or there are more clusters than points.

    Example:
        >>> import torch
        >>> labels = kmeans_labels(torch.tensor([[0.0], [0.1], [5.0]]), 2)
        >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
        (True, False)

    References:
        Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++); scikit-learn's implementation.
    """
    choice("init", init, INITS)
    integer("sample", sample)
    integer("n_clusters", n_clusters)
    if n_clusters > len(points):
        raise ConfigError(f"n_clusters must be at most the number of points {len(points)}, got {n_clusters}")
    fitted = points
    if len(points) > max(sample, n_clusters):
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        fitted = points[order[: max(sample, n_clusters)]]
    from sklearn.cluster import KMeans  # imported here, because the import takes two seconds

    model = KMeans(n_clusters, init=init, n_init=n_init, max_iter=max_iter, random_state=seed)
    # model.labels_ would cover the fitted sample only.
    return consecutive_labels(nearest(points, _fitted_centres(model, fitted)))


def _fitted_centres(model: Any, points: Tensor) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # "Number of distinct clusters found smaller than n_clusters": that is allowed here, see kmeans_labels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points.numpy())
    return torch.from_numpy(model.cluster_centers_)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Return the index of the nearest centre of each point, int64 ``[N]``; ties go to the first.

    Args:
        points: The points ``[N, d]``.
        centres: The centres ``[K, d]``.
    """
    centres = centres.to(points.dtype)
    # |x - c|^2 / 2 without the term |x|^2 / 2, which is the same for all centres.
    norms = centres.square().sum(1) / 2
    rows = max(1, BLOCK // len(centres))
    return torch.cat([(norms - part @ centres.T).argmin(1) for part in points.split(rows)])


def consecutive_labels(labels: Tensor) -> Tensor:
    """Return the labels renumbered from 0 without gaps; their order stays.

    Example:
        >>> import torch
        >>> consecutive_labels(torch.tensor([7, 2, 7])).tolist()
        [1, 0, 1]
    """
    return torch.unique(labels, return_inverse=True)[1]
