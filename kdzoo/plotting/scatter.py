"""Scatter plots: a model's values against a reference's, and points coloured by cluster."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import (
    GUIDE_COLOUR,
    axes_row,
    cluster_style,
    display_name,
    points_legend,
    save_figure,
    styles,
)


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
    labels = f"log-probability, {reference} (nats)", "log-probability, model (nats)"
    caption = f"Each point is a text; on the diagonal, the model gives it the probability of the {reference}."
    return _scatter(x, y, path, labels, title="Log-probabilities", caption=caption)


def similarity_scatter(x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw the cosine similarities of pairs of texts under models against those under the teacher.

    Args:
        x: Similarity of each pair under the teacher, in [-1, 1], ``[n]``.
        y: The name of a model -> similarity of each pair under it, ``[n]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    labels = "cosine similarity, teacher", "cosine similarity, model"
    caption = "Each point is a pair of texts; on the diagonal, the model finds them as similar as the teacher does."
    return _scatter(x, y, path, labels, title="Similarities of texts", caption=caption)


def _scatter(
    x: NDArray[np.floating],
    y: Mapping[str, NDArray[np.floating]],
    path: Path,
    labels: tuple[str, str],
    *,
    title: str,
    caption: str,
) -> Path:
    """Draw values of models against those of a reference, and the line where they are equal."""
    figure = Figure(figsize=(4.5, 4.8), layout="constrained")
    axes = figure.subplots()
    of_model = styles(y)
    for name, values in y.items():
        finite = np.isfinite(x) & np.isfinite(values)
        label = display_name(name) + ("" if finite.all() else f" ({np.sum(~finite)} impossible)")
        axes.scatter(x[finite], values[finite], s=9, label=label, **of_model[name].of_points())
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=GUIDE_COLOUR, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    points_legend(figure, columns=min(2, len(y)))
    return save_figure(figure, path, title=title, caption=caption)


def cluster_scatter(points: NDArray[np.floating], labels: NDArray[np.integer], path: Path) -> Path:
    """Draw hidden states in the plane, in the marker and colour of the state of an automaton; the title counts these.

    Args:
        points: The first two principal components of hidden states, ``[n, 2]``.
        labels: State of the automaton of each point, ``[n]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    given = np.asarray(points)
    for i, label in enumerate(np.unique(labels)):
        x, y = given[labels == label].T
        axes.scatter(x, y, s=14, **cluster_style(i).of_points())
    axes.set(xlabel="first principal component", ylabel="second principal component")
    return save_figure(
        figure,
        path,
        title=f"Hidden states in {len(np.unique(labels))} clusters",
        caption="Hidden states of the teacher in two principal components; "
        "marker and colour show the state of the automaton.",
    )


def class_scatter(
    panels: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    path: Path,
    *,
    title: str,
    caption: str,
) -> Path:
    """Draw points in the plane in the marker and colour of their class, one panel per model.

    Args:
        panels: The name of a model -> points ``[n, 2]``.
        labels: Class of each point, ``[n]``; negative where it is not known, and the point is not drawn.
        path: Path of the PNG file.
        title: Title of the figure.
        caption: One or two sentences that say what is drawn.

    Returns:
        The path.
    """
    figure = Figure(figsize=(4.3 * len(panels) + 0.4, 4.8), layout="constrained")
    classes = [label for label in np.unique(labels) if label >= 0]
    for panel, (axes, (name, points)) in enumerate(zip(axes_row(figure, len(panels)), panels.items(), strict=True)):
        for i, label in enumerate(classes):
            x, y = points[labels == label].T
            # A label starting with "_" is left out of the legend, which needs each class once.
            axes.scatter(x, y, s=9, label=f"_{label}" if panel else str(label), **cluster_style(i).of_points())
        axes.set(xlabel="first value", ylabel="second value", title=display_name(name))
    points_legend(figure, columns=min(10, len(classes)))
    return save_figure(figure, path, title=title, caption=caption)
