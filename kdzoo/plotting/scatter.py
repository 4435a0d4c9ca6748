"""Scatter plots: a model's values against a reference's, and points coloured by cluster."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import GUIDE_COLOUR, ROLE_COLOURS, save_figure


def log_prob_scatter(
    x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path, *, reference: str
) -> Path:
    """Draw the log-probabilities of token sequences under models against those under a reference.

    Sequences that are impossible (log-probability -inf) under the model or the reference are not drawn; the legend
    says how many they are.

    Args:
        x: Log-probability of each sequence under the reference, in nats, ``[n]``.
        y: The name of a model -> log-probability of each sequence under it, in nats, ``[n]``.
        path: Path of the PNG file.
        reference: Name of the reference, for the label of the axis.

    Returns:
        The path.
    """
    return _scatter(x, y, path, f"log-probability of a string, {reference} (nats)", "log-probability, model (nats)")


def similarity_scatter(x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw the cosine similarities of pairs of texts under models against those under the teacher.

    Args:
        x: Similarity of each pair under the teacher, in [-1, 1], ``[n]``.
        y: The name of a model -> similarity of each pair under it, ``[n]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    return _scatter(x, y, path, "similarity of a pair, teacher", "similarity, model")


def _scatter(
    x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path, x_label: str, y_label: str
) -> Path:
    """Draw values of models against those of a reference, and the line where they are equal."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in y.items():
        finite = np.isfinite(x) & np.isfinite(values)
        label = name if finite.all() else f"{name} ({np.sum(~finite)} impossible)"
        # Transparent markers show where the thousands of points of a report pile up.
        axes.scatter(x[finite], values[finite], s=6, alpha=0.4, linewidths=0, label=label, color=ROLE_COLOURS.get(name))
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=GUIDE_COLOUR, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    figure.legend(loc="outside upper center", ncols=len(y), markerscale=2)
    return save_figure(
        figure,
        path,
        caption="Each point is a text or a pair of texts; on the diagonal, the model has the value of the reference.",
    )


def cluster_scatter(points: NDArray[np.floating], labels: NDArray[np.integer], path: Path) -> Path:
    """Draw points of the plane coloured by their cluster; the title says how many clusters there are.

    Args:
        points: Coordinates, such as the first two principal components of hidden states, ``[n, 2]``.
        labels: Cluster of each point, ``[n]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    x, y = np.asarray(points).T
    # The colour map "tab20" has 20 colours: beyond 20 clusters they repeat.
    axes.scatter(x, y, c=np.asarray(labels) % 20, cmap="tab20", s=6, linewidths=0, alpha=0.7)
    axes.set(xlabel="first principal component", ylabel="second", title=f"{len(np.unique(labels))} states")
    return save_figure(
        figure,
        path,
        caption="Hidden states of the teacher in two principal components, coloured by the state of the automaton.",
    )
