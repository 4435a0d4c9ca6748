"""Rows and panels of images in which every pixel of an image is a square of whole pixels of the file.

A figure that is saved at some resolution resamples the images in it. Here the images are enlarged by a whole number,
placed on one canvas, and the axes get exactly the size of the canvas, so that no pixel is blurred or lost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import DPI, NEAREST, display_name, save_figure

# About so many pixels of the file for the longer side of a small image; the enlargement is a whole number.
SMALL_SIDE = 64

# A panel is about five small images wide, for images that are looked at one by one.
PANEL_SIDE = 5 * SMALL_SIDE

# Gaps between images in pixels of the file; panels have labels on top and need more room.
ROW_GAP, PANEL_GAP = 4, 24


def image_rows(rows: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw images in rows, one row per name.

    Args:
        rows: The label of a row -> images with values in [0, 1], ``[n, channels, height, width]``, all of one height
            and width. Values outside of [0, 1] are clipped, NaN is drawn as 0. Images of fewer than three channels
            are drawn in grey, by their first channel.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    height, width = next(iter(rows.values())).shape[2:]
    zoom = max(1, round(SMALL_SIDE / max(height, width)))
    canvas = _canvas([list(images) for images in rows.values()], zoom, gap=ROW_GAP)
    # At 9 points and 120 dots per inch an average character is less than 10 pixels wide.
    figure, axes = _framed(canvas, left=16 + 10 * max(map(len, rows)), below=8, above=8)
    centres = [y * (height * zoom + ROW_GAP) + (height * zoom - 1) / 2 for y in range(len(rows))]
    axes.set_yticks(centres, [display_name(name) for name in rows])
    return save_figure(figure, path, caption="Samples, one row for each model.")


def image_panels(panels: Mapping[str, NDArray[np.floating]], path: Path, *, xlabel: str, ylabel: str) -> Path:
    """Draw one large image per name, side by side.

    Args:
        panels: The label of a panel -> image ``[channels, height, width]`` with values in [0, 1], all of one height
            and width; see :func:`image_rows`.
        path: Path of the PNG file.
        xlabel: Label below all panels.
        ylabel: Label on the left.

    Returns:
        The path.
    """
    height, width = next(iter(panels.values())).shape[1:]
    zoom = max(1, round(PANEL_SIDE / max(height, width)))
    canvas = _canvas([list(panels.values())], zoom, gap=PANEL_GAP)
    figure, axes = _framed(canvas, left=40, below=32, above=32)
    centres = [x * (width * zoom + PANEL_GAP) + (width * zoom - 1) / 2 for x in range(len(panels))]
    axes.set_xticks(centres, [display_name(name) for name in panels])
    axes.xaxis.tick_top()
    axes.set_xlabel(xlabel, fontsize=9)
    axes.xaxis.set_label_position("bottom")  # ``tick_top`` has moved it to the top
    axes.set_ylabel(ylabel, fontsize=9)
    return save_figure(figure, path, caption="Samples, one panel for each model.")


def _canvas(grid: Sequence[Sequence[NDArray[np.floating]]], zoom: int, gap: int) -> NDArray[np.floating]:
    """Return rows of images ``[channels, h, w]`` as one white canvas ``[H, W, 3]``, each pixel ``zoom`` pixels wide."""
    height, width = (side * zoom for side in grid[0][0].shape[1:])
    down, across = height + gap, width + gap
    canvas = np.ones((len(grid) * down - gap, max(map(len, grid)) * across - gap, 3))
    for y, row in enumerate(grid):
        for x, image in enumerate(row):
            enlarged = _to_rgb(image).repeat(zoom, 0).repeat(zoom, 1)
            canvas[y * down : y * down + height, x * across : x * across + width] = enlarged
    return canvas


def _framed(canvas: NDArray[np.floating], *, left: int, below: int, above: int) -> tuple[Figure, Any]:
    """Return a figure and axes in which a pixel of the canvas is a pixel of the file; margins are in pixels."""
    height, width = canvas.shape[:2]
    total_width, total_height = left + width + 8, below + height + above
    # Sizes are in inches and positions are shares of the figure: both follow from pixels, without a layout engine,
    # which would move the axes off the grid of pixels.
    figure = Figure(figsize=(total_width / DPI, total_height / DPI))
    box = (left / total_width, below / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(box)
    axes.imshow(canvas, aspect="auto", **NEAREST)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, labelsize=9)
    return figure, axes


def _to_rgb(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return an image ``[channels, h, w]`` as red, green and blue in [0, 1], ``[h, w, 3]``."""
    rgb = image if len(image) == 3 else image[:1].repeat(3, 0)
    return np.clip(np.nan_to_num(rgb), 0, 1).transpose(1, 2, 0)
