"""Pictures of a synthetic set: its examples, how they changed, and how networks fare under other protocols.

Every function writes one file and returns its path. Examples lie on a grid that is one picture, in pixels of the
examples themselves, so that a hundred of them take no longer than one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.dataset_distillation.protocols import ProtocolMatrix
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet, initial_labels
from kdzoo.errors import ConfigError
from kdzoo.plotting import ROLE_COLOURS

MOST_CLASSES, MOST_EXAMPLES, MOST_EPOCHS = 20, 10, 10
"""What a picture holds: classes, examples of each, epochs."""
_RANGE = (0.5, 99.5)
"""Percentiles of all pixels that are black and white: single extreme pixels do not darken the rest."""
_INCHES = 0.55
"""Width of an example."""

_Array = NDArray[np.floating[Any]]


def first_of_each_class(few: SyntheticSet) -> Tensor:
    """Return the images that pictures over time show, [m, *in_shape]: the first example of each class, m <= 20.

    An example's class is the one that it began with, so that they are the same ones however the labels move.
    """
    began = initial_labels(few.size, few.num_classes).argmax(1)
    return few.images.detach()[[rows[0] for rows in _by_class(began)]]


def plot_examples(few: SyntheticSet, path: Path) -> Path:
    """Draw up to 10 examples of each class, a class in a row, and beside them the step sizes of every inner network.

    The class of an example is its largest label. Below it stand its labels as bars, if they are learned: 0 is the
    line, and the scale is one for all. Inputs that are no pictures are drawn as bars too.
    """
    classes = few.classes().cpu()
    rows = [row[:MOST_EXAMPLES] for row in _by_class(classes)]
    chosen = [i for row in rows for i in row]
    places = np.array([(column, y) for y, row in enumerate(rows) for column in range(len(row))])
    cells = _Cells.of(few.images, has_strip=few.label_kind != "fixed")
    size = len(rows), max(len(row) for row in rows)
    figure, axes, beside = _page(cells, *size, panel=2.6)
    _draw(axes, cells, few.images[chosen], places)
    if cells.strip:
        corners = cells.corners(places) + np.array([0, cells.height + cells.strip])
        _bars(
            axes, _numbers(few.labels[chosen]), corners, float(cells.width), 0.8 * cells.strip, ROLE_COLOURS["student"]
        )
    axes.set_yticks(cells.middles(size[0]), [f"class {int(classes[row[0]])}" for row in rows])
    _draw_schedules(beside, few)
    return _save(figure, path)


def plot_image_history(epochs: Sequence[Tensor], path: Path) -> Path:
    """Draw how images changed: a row for each of them, a column for each of about ten epochs, first and last included.

    Args:
        epochs: the images [m, *in_shape] after each epoch.
        path: of the file.

    Raises:
        ConfigError: there is no epoch.
    """
    if not epochs:
        raise ConfigError("epochs must hold the images of at least one epoch, got none")
    columns = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_EPOCHS)).round().astype(int)).tolist()
    images = torch.stack([epochs[i] for i in columns], 1)  # [m, columns, *in_shape]
    size = len(images), len(columns)
    cells = _Cells.of(images[0], has_strip=False)
    figure, axes, _ = _page(cells, *size)
    _draw(axes, cells, images.flatten(0, 1), np.array([(x, y) for y in range(size[0]) for x in range(size[1])]))
    axes.set_xticks([x * cells.across + cells.width / 2 for x in range(size[1])], [str(i + 1) for i in columns])
    axes.set_xlabel("epoch")
    return _save(figure, path)


def plot_protocol_matrix(matrix: ProtocolMatrix, path: Path) -> Path:
    """Draw the mean accuracy of every protocol and inner network, with its deviation and the networks that diverged."""
    protocols, inner_networks = matrix.names
    mean, std, lost = _numbers(matrix.mean()), _numbers(matrix.std()), matrix.diverged.sum(-1)
    figure = Figure(figsize=(1.8 + 1.4 * len(inner_networks), 1.2 + 0.55 * len(protocols)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mean, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (y, x), value in np.ndenumerate(mean):
        text = f"{100 * value:.1f} ± {100 * std[y, x]:.1f}"
        text += f"\n{int(lost[y, x])} diverged" if lost[y, x] else ""
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if value < 0.6 else "black")
    axes.set_xticks(range(len(inner_networks)), inner_networks)
    axes.set_yticks(range(len(protocols)), protocols)
    axes.set_title("accuracy, %", fontsize=9)
    return _save(figure, path)


# ---------------------------------------------------------------- the grid


@dataclass(frozen=True)
class _Cells:
    """A grid of examples.

    Attributes:
        width: of an example, in pixels.
        height: of an example.
        strip: height of what is drawn below it, 0 for nothing.
        is_picture: whether examples are drawn as pixels; otherwise as bars.
    """

    width: int
    height: int
    strip: float
    is_picture: bool

    @classmethod
    def of(cls, images: Tensor, *, has_strip: bool) -> "_Cells":
        shape = images.shape[1:]
        is_picture = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
        height, width = shape[-2:] if is_picture else (40, 100)
        return cls(width, height, 0.35 * width if has_strip else 0.0, is_picture)

    @property
    def across(self) -> int:
        """Pixels from an example to the next one in its row."""
        return self.width + math.ceil(0.08 * self.width)

    @property
    def down(self) -> int:
        """Pixels from a row to the next."""
        return self.height + math.ceil(1.3 * self.strip + 0.08 * self.width)

    def corners(self, places: NDArray[np.integer[Any]]) -> _Array:
        """Return the upper left corners [n, 2] of the places (column, row) [n, 2]."""
        return places * np.array([self.across, self.down], dtype=float)

    def middles(self, rows: int) -> list[float]:
        """Return the heights of the middles of the examples of every row."""
        return [y * self.down + self.height / 2 for y in range(rows)]


def _by_class(classes: Tensor) -> list[list[int]]:
    """Return the positions of the examples of each class that occurs, in order of class, at most 20 classes."""
    found = classes.unique()[:MOST_CLASSES]
    return [(classes == c).nonzero().flatten().tolist() for c in found]


def _page(cells: _Cells, rows: int, columns: int, panel: float = 0.0) -> tuple[Figure, Any, Any]:
    """Return a figure with axes for a grid and, ``panel`` inches wide, for something beside it (or None)."""
    pixel = _INCHES / cells.width
    width, height = columns * cells.across * pixel, rows * cells.down * pixel
    left, bottom, top = 0.75, 0.5, 0.25
    tall = max(height, 1.4 if panel else 0.0)
    whole = left + width + panel + 0.1, bottom + tall + top
    figure = Figure(figsize=whole)
    axes = figure.add_axes((left / whole[0], (bottom + tall - height) / whole[1], width / whole[0], height / whole[1]))
    axes.set(xlim=(0, columns * cells.across), ylim=(rows * cells.down, 0))
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, labelsize=7)
    if not panel:
        return figure, axes, None
    start, high = left + width + 0.75, min(tall, 2.2)
    box = (start / whole[0], (bottom + tall - high) / whole[1], (panel - 0.75) / whole[0], high / whole[1])
    return figure, axes, figure.add_axes(box)


def _draw(axes: Any, cells: _Cells, images: Tensor, places: NDArray[np.integer[Any]]) -> None:
    """Draw images [n, *in_shape] at places (column, row) [n, 2]."""
    numbers = _numbers(images)
    if not cells.is_picture:
        corners = cells.corners(places) + np.array([0, cells.height])
        _bars(
            axes,
            numbers.reshape(len(numbers), -1),
            corners,
            float(cells.width),
            float(cells.height),
            ROLE_COLOURS["teacher"],
        )
        return
    low, high = np.percentile(numbers, _RANGE)
    scaled = ((numbers - low) / ((high - low) or 1)).clip(0, 1)
    pixels = scaled[:, None] if scaled.ndim == 3 else scaled
    canvas = np.ones(((places[:, 1].max() + 1) * cells.down, (places[:, 0].max() + 1) * cells.across, 3))
    for image, (x, y) in zip(np.moveaxis(pixels, 1, -1), cells.corners(places).astype(int), strict=True):
        canvas[y : y + cells.height, x : x + cells.width] = image
    limits = axes.axis()
    axes.imshow(canvas, extent=(0, canvas.shape[1], canvas.shape[0], 0), interpolation="nearest", aspect="auto")
    axes.axis(limits)


def _bars(axes: Any, values: _Array, corners: _Array, width: float, height: float, colour: str) -> None:
    """Draw each row of values [n, d] as bars in a box given by its lower left corner [n, 2]; all have one scale."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = height / ((high - low) or 1)
    steps = np.repeat(np.linspace(0, width, values.shape[1] + 1), 2)  # the outline goes up and along, up and along
    tops = np.pad(np.repeat(values, 2, axis=1), ((0, 0), (1, 1)))
    outlines = np.stack([steps + corners[:, :1], corners[:, 1:] - scale * (tops - low)], -1)
    axes.add_collection(PolyCollection(list(outlines), facecolor=colour, linewidth=0), autolim=False)
    zero = corners[:, 1] + scale * low
    axes.hlines(zero, corners[:, 0], corners[:, 0] + width, color="#999999", linewidth=0.4)


def _draw_schedules(axes: Any, few: SyntheticSet) -> None:
    """Draw the step sizes of every inner network over the steps."""
    for name in few.inner_networks:
        sizes = few.schedule(name).detach().cpu().tolist()
        axes.plot(range(1, few.steps + 1), sizes, marker="." if few.steps <= 50 else "", linewidth=1, label=name)
    axes.set_xlim(0.5, few.steps + 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step", fontsize=7)
    axes.set_title("step size", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", integer=True, nbins=5, min_n_ticks=1)
    axes.legend(fontsize=7)


def _numbers(values: Tensor) -> _Array:
    """Return finite numbers: what is NaN or infinite is drawn as 0."""
    return values.detach().double().cpu().nan_to_num(0, 0, 0).numpy()


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
