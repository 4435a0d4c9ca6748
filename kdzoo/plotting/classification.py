"""Figures of classifiers: calibration, and the recall of each class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import GUIDE_COLOUR, display_name, points_legend, save_figure, styles

MAX_CLASS_TICKS = 50  # more class numbers would overlap


def reliability_diagram(
    confidence: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_]]], path: Path, *, bins: int
) -> Path:
    """Draw accuracy against confidence in bins of equal width; a calibrated classifier lies on the diagonal.

    Each point stands at the mean confidence and the accuracy of the samples of one bin. Empty bins have no point.

    Args:
        confidence: The name of a model -> (confidence in [0, 1], whether the prediction is correct), each ``[n]``.
        path: Path of the PNG file.
        bins: Number of bins, >= 1.

    Returns:
        The path.

    References:
        Guo et al. 2017, "On calibration of modern neural networks", section 2.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GUIDE_COLOUR, linewidth=1, linestyle="--")
    of_model = styles(confidence)
    for name, (probability, correct) in confidence.items():
        # A confidence of exactly 1 belongs to the last bin.
        bin_index = np.minimum((probability * bins).astype(int), bins - 1)
        filled = [b for b in range(bins) if (bin_index == b).any()]
        x = [probability[bin_index == b].mean() for b in filled]
        y = [correct[bin_index == b].mean() for b in filled]
        shares = [(bin_index == b).mean() for b in filled]
        style = of_model[name]
        axes.plot(x, y, linewidth=0.8, alpha=0.5, color=style.colour, linestyle=style.line)
        # The area of a marker grows with the share of samples in its bin; 8 keeps a bin of one sample visible.
        sizes = [8 + 150 * share for share in shares]
        axes.scatter(x, y, s=sizes, label=display_name(name), **style.of_points())
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.05), ylim=(0, 1.05))
    points_legend(figure, columns=min(4, len(confidence)))
    return save_figure(
        figure,
        path,
        title="Reliability diagram",
        caption=(
            f"Accuracy against confidence, in {bins} bins of equal width; the larger a marker, the more samples are in "
            "its bin. A calibrated classifier lies on the diagonal."
        ),
    )


def recall_by_class(recall: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw the recall of every class as bars, one group per class and one bar per model.

    Args:
        recall: The name of a model -> recall in [0, 1] of each class, ``[classes]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    classes = len(next(iter(recall.values())))
    # A bar of less than 0.07 inches cannot be told from its neighbours; 100 classes make a page of 16 inches at most.
    figure = Figure(figsize=(min(16.0, max(6.0, (0.2 + 0.07 * len(recall)) * classes)), 3.5), layout="constrained")
    axes = figure.subplots()
    of_model = styles(recall)
    width = 0.8 / len(recall)  # a group takes 0.8 of its class, the rest is the gap to the next group
    for i, (name, values) in enumerate(recall.items()):
        centres = np.arange(classes) + (i - (len(recall) - 1) / 2) * width
        look: dict[str, Any] = {
            "color": of_model[name].colour,
            "hatch": of_model[name].hatch,
            "edgecolor": "white",
            "linewidth": 0.4,
        }
        axes.bar(centres, values, width, label=display_name(name), **look)
    stride = -(-classes // MAX_CLASS_TICKS)
    axes.set(xlabel="class", ylabel="recall", xticks=np.arange(0, classes, stride), ylim=(0, 1.02))
    axes.set_xlim(-0.6, classes - 0.4)
    figure.legend(loc="outside lower center", ncols=min(4, len(recall)))
    return save_figure(
        figure,
        path,
        title="Recall of each class",
        caption="Share of the samples of each class that is recognised, a bar for each model.",
    )
