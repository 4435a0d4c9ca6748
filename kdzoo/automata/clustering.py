"""k-means of the points of trajectories: the coarse quantiser before merging, and a baseline of its own."""

import warnings
from typing import Any

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from kdzoo.core.validation import choice, integer
from kdzoo.errors import ConfigError

BLOCK = 1 << 24  # distances that are held at once
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
    """Return the cluster of each point by Lloyd's algorithm, int64 [N] in 0..n_clusters-1, none of them empty.

    Where there are more points than `sample`, the centres are fitted to that many points drawn without
    replacement, and all points are then given to their nearest centre.

    Args:
        points: the points [N, d].
        n_clusters: number of clusters K, at most the number of points; fewer come back where fewer points differ.
        init: "k-means++" or "random" (K points as first centres).
        n_init: restarts, of which the least inertia is kept, >= 1.
        max_iter: greatest number of steps of Lloyd's algorithm, >= 1.
        sample: greatest number of points that centres are fitted to, >= 1.
        seed: seed of the draws.

    Raises:
        ConfigError: an argument is out of range, or there are more clusters than points.

    Example:
        >>> import torch
        >>> labels = kmeans_labels(torch.tensor([[0.0], [0.1], [5.0]]), 2)
        >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
        (True, False)

    Source:
        Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++); scikit-learn's implementation.
    """
    integer("n_clusters", n_clusters)
    integer("sample", sample)
    choice("init", init, INITS)
    if n_clusters > len(points):
        raise ConfigError(f"n_clusters must be at most the number of points {len(points)}, got {n_clusters}")
    generator = torch.Generator().manual_seed(seed)
    drawn = points
    if len(points) > max(sample, n_clusters):
        drawn = points[torch.randperm(len(points), generator=generator)[: max(sample, n_clusters)]]
    model: Any = KMeans(n_clusters, init=init, n_init=n_init, max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer points may differ than there are clusters
        model.fit(drawn.numpy())
    return consecutive_labels(nearest(points, torch.from_numpy(model.cluster_centers_)))


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest centre of each point [N], ties to the first, never more than BLOCK distances at once."""
    centres = centres.to(points.dtype)
    norms = centres.square().sum(1) / 2
    rows = max(1, BLOCK // len(centres))
    return torch.cat([(norms - part @ centres.T).argmin(1) for part in points.split(rows)])


def consecutive_labels(labels: Tensor) -> Tensor:
    """Return the labels numbered through without gaps, in the same order.

    Example:
        >>> import torch
        >>> consecutive_labels(torch.tensor([7, 2, 7])).tolist()
        [1, 0, 1]
    """
    return torch.unique(labels, return_inverse=True)[1]
