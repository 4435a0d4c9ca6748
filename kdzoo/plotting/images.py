"""Contact sheets and panels of images in which every pixel of an image is a square of whole pixels of the file.

A figure that is saved at some resolution resamples the images in it. Here the images are enlarged by a whole number,
placed on one canvas, and the axes get exactly the size of the canvas, so that no pixel is blurred or lost. Images fill
the width of a page: few of them are enlarged, and many continue on the next line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import DPI, NEAREST, TITLE_INCHES, display_name, save_figure

# Width of a page in pixels of the file: a row of 16 images of 28 pixels, doubled, and its label.
PAGE = 1100

# Lengths in pixels of the longer side of an image: so many at least in a contact sheet, as far as a whole zoom allows,
# so many at most if there are few, and those of a panel, which is looked at on its own.
SMALL_SIDE, LARGE_SIDE, PANEL_SIDE = 56, 200, 320

# Gaps in pixels of the file: between images, between the images of two models, and between panels, which have labels.
GAP, GROUP_GAP, PANEL_GAP = 4, 14, 28

# Space of the title, and of a margin without text, in pixels.
TITLE, MARGIN = round(TITLE_INCHES * DPI), 8


def image_rows(rows: Mapping[str, NDArray[np.floating]], path: Path, *, title: str, caption: str) -> Path:
    """Draw images in rows, one row per name; a row that is wider than a page continues on the next line.

    Args:
        rows: The label of a row -> images with values in [0, 1], ``[n, channels, height, width]``, all of one height
            and width. Values outside of [0, 1] are clipped, NaN is drawn as 0. Images of fewer than three channels
            are drawn in grey, by their first channel.
        path: Path of the PNG file.
        title: Title of the figure.
        caption: One or two sentences that say what is drawn.

    Returns:
        The path.
    """
    # At 9 points and 120 dots per inch an average character is less than 8.5 pixels wide.
    left = 16 + int(8.5 * max(map(len, rows)))
    size = next(iter(rows.values())).shape[2:]
    sheet = Sheet.fitting(size, max(map(len, rows.values())), PAGE - left - MARGIN)
    canvases = [sheet.canvas(images) for images in rows.values()]
    canvas, tops = _stacked(canvases, GROUP_GAP)
    figure, axes = _framed(canvas, left=left, below=MARGIN, above=TITLE)
    centres = [top + (len(part) - 1) / 2 for top, part in zip(tops, canvases, strict=True)]
    axes.set_yticks(centres, [display_name(name) for name in rows])
    return save_figure(figure, path, title=title, caption=caption)


def image_panels(
    panels: Mapping[str, NDArray[np.floating]], path: Path, *, xlabel: str, ylabel: str, title: str, caption: str
) -> Path:
    """Draw one large image per name, side by side, as many as fit on a line.

    Args:
        panels: The label of a panel -> image ``[channels, height, width]`` with values in [0, 1], all of one height
            and width; see :func:`image_rows`.
        path: Path of the PNG file.
        xlabel: Label below all panels.
        ylabel: Label on the left.
        title: Title of the figure.
        caption: One or two sentences that say what is drawn.

    Returns:
        The path.
    """
    height, width = next(iter(panels.values())).shape[1:]
    zoom = max(1, round(PANEL_SIDE / max(height, width)))
    n_lines = -(-len(panels) // max(1, (PAGE + PANEL_GAP) // (width * zoom + PANEL_GAP)))
    columns = -(-len(panels) // n_lines)  # lines of nearly equal length
    sheet = Sheet(height, width, zoom, columns, PANEL_GAP)
    canvas = sheet.canvas(np.stack(list(panels.values())))
    figure, axes = _framed(canvas, left=40, below=36, above=TITLE + PANEL_GAP)
    for i, name in enumerate(panels):
        x, y = sheet.corner(i)
        axes.text(x + (width * zoom - 1) / 2, y - 6, display_name(name), ha="center", va="bottom", fontsize=9)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    return save_figure(figure, path, title=title, caption=caption)


@dataclass(frozen=True)
class Sheet:
    """A grid of images of one size, filled line by line.

    Attributes:
        height: Height of an image in its own pixels.
        width: Width of an image in its own pixels.
        zoom: Pixels of the file along a side of a pixel of an image, >= 1.
        columns: Images on a line, >= 1.
        gap: Pixels of the file between two images.
    """

    height: int
    width: int
    zoom: int
    columns: int
    gap: int

    @classmethod
    def fitting(cls, size: Sequence[int], count: int, room: int) -> "Sheet":
        """Return the sheet of ``count`` images of a size (height, width) that fills lines of ``room`` pixels best."""
        height, width = size
        least = max(1, -(-SMALL_SIDE // max(size)))
        n_lines = -(-count // max(1, (room + GAP) // (width * least + GAP)))
        columns = -(-count // n_lines)  # lines of nearly equal length
        most = max(1, LARGE_SIDE // max(size))
        zoom = min(most, max(least, ((room + GAP) // columns - GAP) // width))
        return cls(height, width, zoom, columns, GAP)

    def corner(self, i: int) -> tuple[int, int]:
        """Return the upper left corner (x, y) of the image of number ``i`` on the canvas."""
        line, column = divmod(i, self.columns)
        return column * (self.width * self.zoom + self.gap), line * (self.height * self.zoom + self.gap)

    def canvas(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return images ``[n, channels, height, width]`` on one white canvas ``[H, W, 3]``."""
        height, width = self.height * self.zoom, self.width * self.zoom
        right, bottom = self.corner(self.columns - 1)[0], self.corner(len(images) - 1)[1]
        canvas = np.ones((bottom + height, right + width, 3))
        for i, image in enumerate(images):
            x, y = self.corner(i)
            canvas[y : y + height, x : x + width] = _to_rgb(image).repeat(self.zoom, 0).repeat(self.zoom, 1)
        return canvas


def _stacked(canvases: Sequence[NDArray[np.floating]], gap: int) -> tuple[NDArray[np.floating], list[int]]:
    """Return canvases ``[h, w, 3]`` of one width below each other as one, and the position of the top of each."""
    tops = [sum(len(canvas) + gap for canvas in canvases[:i]) for i in range(len(canvases))]
    stacked = np.ones((tops[-1] + len(canvases[-1]), *canvases[0].shape[1:]))
    for top, canvas in zip(tops, canvases, strict=True):
        stacked[top : top + len(canvas)] = canvas
    return stacked, tops


def _framed(canvas: NDArray[np.floating], *, left: int, below: int, above: int) -> tuple[Figure, Any]:
    """Return a figure and axes in which a pixel of the canvas is a pixel of the file; margins are in pixels."""
    height, width = canvas.shape[:2]
    total_width, total_height = left + width + MARGIN, below + height + above
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
