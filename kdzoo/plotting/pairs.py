"""Strengths of pairs of inputs, such as mutual information or interaction: as lines on images, and as matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import NEAREST, OTHER_COLOUR, ROLE_COLOURS, axes_row, display_name, save_figure

Pairs = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Positions of pairs of pixels as (row, column), ``[pairs, 2, 2]``, and their strengths >= 0, ``[pairs]``."""

# A matrix has at most about so many tick labels: more would overlap at 7 points.
MAX_TICKS = 16


def pairs_on_images(
    images: NDArray[np.floating],
    rows: Mapping[str, Sequence[Pairs]],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
    caption: str,
) -> Path:
    """Draw images with a line between the two pixels of each pair; the stronger the pair, the wider its line.

    Widths are relative to the strongest pair of each image, whose strength is written below it.

    Args:
        images: One grey image per column, ``[columns, height, width]``.
        rows: The name of a row, such as a model -> the pairs of each column. A pair of a pixel with itself is drawn
            as a point.
        columns: Label of each column.
        path: Path of the PNG file.
        title: Title of the figure.
        caption: One or two sentences that say what a strength is.

    Returns:
        The path.
    """
    figure = Figure(figsize=(1.6 + 1.1 * len(columns), 0.7 + 1.4 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_of_row, (name, cells) in zip(grid, rows.items(), strict=True):
        for axes, image, (positions, strengths) in zip(axes_of_row, images, cells, strict=True):
            axes.imshow(image, cmap="Greys", **NEAREST)
            strongest = float(strengths.max(initial=0))
            for (y, x), share in zip(positions.transpose(0, 2, 1), strengths / (strongest or 1), strict=True):
                # Offsets keep the weakest pair visible.
                look: dict[str, Any] = {
                    "linewidth": 0.3 + 2.2 * share,
                    "markersize": 1.5 + 2.5 * share,
                    "alpha": 0.3 + 0.6 * share,
                }
                axes.plot(x, y, marker="o", color=ROLE_COLOURS.get(name, OTHER_COLOUR), **look)
            axes.set(xticks=[], yticks=[], xlabel=f"{strongest:.2g}")
        axes_of_row[0].set_ylabel(display_name(name), rotation="horizontal", ha="right", va="center")
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return save_figure(figure, path, title=title, caption=caption)


def pair_matrices(
    tables: Mapping[str, tuple[Sequence[str], NDArray[np.floating]]], path: Path, *, title: str, caption: str
) -> Path:
    """Draw the strengths of all pairs as a matrix per name, side by side, each with its colour scale.

    Args:
        tables: The name of a matrix -> (label of each input, symmetric strengths >= 0 ``[inputs, inputs]``).
        path: Path of the PNG file.
        title: Title of the figure.
        caption: One or two sentences that say what a strength is.

    Returns:
        The path.
    """
    figure = Figure(figsize=(1.0 + 3.8 * len(tables), 4.4), layout="constrained")
    for axes, (name, (labels, strengths)) in zip(axes_row(figure, len(tables)), tables.items(), strict=True):
        image = axes.imshow(strengths, cmap="viridis", vmin=0, **NEAREST)
        stride = max(1, -(-len(labels) // MAX_TICKS))
        ticks = list(range(0, len(labels), stride))
        axes.set_xticks(ticks, [labels[i] for i in ticks], fontsize=7, rotation="vertical")
        axes.set_yticks(ticks, [labels[i] for i in ticks], fontsize=7)
        axes.set_title(display_name(name), fontsize=9)
        axes.set(xlabel="input", ylabel="input")
        figure.colorbar(image, ax=axes, shrink=0.7, label="strength")
    return save_figure(figure, path, title=title, caption=caption)
