"""Figures of a synthetic set: its examples, how they changed, and accuracies under other training protocols.

Every function writes one file and returns its path. All examples of a figure are copied onto one canvas, in pixels of
the examples themselves, which is drawn as a single image: a figure with a hundred axes would take seconds.
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
from kdzoo.plotting.style import NEAREST, TITLE_INCHES, display_name, save_figure, styles

# What one figure shows at most: more rows or columns would not be legible at the size of a page.
MAX_CLASSES, MAX_EXAMPLES, MAX_EPOCHS, MAX_COLUMNS = 20, 10, 10, 21
# Percentiles of all pixels that are drawn black and white. Learned pixels have no range: with the extremes in their
# place, a few outliers would leave all other pixels in similar greys.
_PERCENTILES = (0.5, 99.5)
# Inches: width of the grid of examples, least width and largest side of an example, height of the panel of step sizes.
_GRID_INCHES, _LEAST_INCHES, _LARGEST_INCHES, _PANEL_INCHES = 6.0, 0.4, 1.0, 1.2
# Space above a line of examples for the names of their classes, in inches.
_NAME_INCHES = 0.18
# Size in pixels of the cell of an example that is not an image, whose values are drawn as bars.
_BARS_HEIGHT, _BARS_WIDTH = 40, 100

_Array = NDArray[np.floating[Any]]


def first_of_each_class(synthetic_set: SyntheticSet) -> Tensor:
    """Return the first example of each class, for figures that show the same examples over time.

    The class is that of the initial labels, so that the choice does not change when labels are learned.

    Args:
        synthetic_set: The set.

    Returns:
        Images ``[m, *in_shape]``, m <= ``MAX_CLASSES``.
    """
    classes = initial_labels(synthetic_set.size, synthetic_set.num_classes).argmax(1)
    return synthetic_set.images.detach()[[rows[0] for rows in _by_class(classes)]]


def plot_examples(synthetic_set: SyntheticSet, path: Path, *, title: str) -> Path:
    """Draw examples of each class side by side, and below them the step sizes of every inner network.

    Classes of few examples share a line.

    The class of an example is that of its largest label. Learned labels are drawn as bars below their example, around a
    line at 0 and with one scale for all examples. Inputs that are not images are drawn as bars, too.

    Args:
        synthetic_set: The set; at most ``MAX_EXAMPLES`` examples of each of ``MAX_CLASSES`` classes are drawn.
        path: Path of the file to write.
        title: Title of the figure.
    """
    classes = synthetic_set.classes().cpu()
    groups = [group[:MAX_EXAMPLES] for group in _by_class(classes)]
    indices = [i for group in groups for i in group]
    most = max(map(len, groups))
    # As many classes on a line as fit, in lines of nearly equal numbers, with an empty column between two classes.
    block = most + (most > 1)
    n_lines = -(-len(groups) // max(1, (MAX_COLUMNS + block - most) // block))
    per_line = -(-len(groups) // n_lines)
    n_columns = per_line * block - (block - most)
    starts = [(k % per_line * block, k // per_line) for k in range(len(groups))]
    places = np.array([(x + i, y) for (x, y), group in zip(starts, groups, strict=True) for i in range(len(group))])
    cells = _Cells.of(
        synthetic_set.images, columns=n_columns, has_strip=synthetic_set.label_kind != "fixed", has_names=True
    )
    figure, axes, panel = _page(cells, n_lines, n_columns, panel=_PANEL_INCHES)
    _draw(axes, cells, synthetic_set.images[indices], places)
    if cells.strip:
        corners = cells.corners(places) + np.array([0, cells.height + cells.strip])
        labels = _numbers(synthetic_set.labels[indices])
        # 0.8 of the strip, so that bars do not touch the example above.
        _bars(axes, labels, corners, float(cells.width), 0.8 * cells.strip, ROLE_COLOURS["student"])
    for corner, group in zip(cells.corners(np.array(starts)), groups, strict=True):
        axes.text(*corner - [0, 0.2 * cells.names], f"class {int(classes[group[0]])}", fontsize=7, va="bottom")
    _draw_schedules(panel, synthetic_set)
    labels_are_drawn = " Bars below an example: its label, a bar for each class." if cells.strip else ""
    return save_figure(
        figure,
        path,
        title=title,
        caption=f"Examples of each class, and the step sizes of every inner network.{labels_are_drawn}",
    )


def plot_image_history(epochs: Sequence[Tensor], path: Path) -> Path:
    """Draw how images changed: one column for each image, one row for each epoch.

    Of more than ``MAX_EPOCHS`` epochs, evenly spaced ones are drawn, with the first and the last.

    Args:
        epochs: The images ``[m, *in_shape]`` after each epoch.
        path: Path of the file to write.

    Raises:
        ConfigError: There is no epoch.
    """
    if not epochs:
        raise ConfigError("epochs must hold the images of at least one epoch, got none")
    shown = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MAX_EPOCHS)).round().astype(int)).tolist()
    images = torch.stack([epochs[i] for i in shown])  # [rows, m, *in_shape]
    size = images.shape[:2]
    cells = _Cells.of(images[0], columns=size[1])
    figure, axes, _ = _page(cells, *size)
    _draw(axes, cells, images.flatten(0, 1), np.array([(x, y) for y in range(size[0]) for x in range(size[1])]))
    axes.set_yticks(cells.middles(size[0]), [f"epoch {i + 1}" for i in shown])
    return save_figure(
        figure,
        path,
        title="Images after each epoch",
        caption="How images changed: one column for each image, one row for each epoch.",
    )


def plot_protocol_matrix(matrix: ProtocolMatrix, path: Path) -> Path:
    """Draw the mean accuracy of every protocol and inner network as a heat map.

    Each cell also holds the standard deviation over initial weights and the number of networks that diverged.

    Args:
        matrix: The accuracies.
        path: Path of the file to write.
    """
    protocols, inner_networks = matrix.names
    mean, std, diverged = _numbers(matrix.mean()), _numbers(matrix.std()), matrix.diverged.sum(-1)
    figure = Figure(figsize=(1.8 + 1.4 * len(inner_networks), 1.4 + 0.55 * len(protocols)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mean, vmin=0, vmax=1, cmap="viridis", aspect="auto", **NEAREST)
    for (y, x), value in np.ndenumerate(mean):
        text = f"{100 * value:.1f} ± {100 * std[y, x]:.1f}"
        text += f"\n{int(diverged[y, x])} diverged" if diverged[y, x] else ""
        # Viridis is dark up to about 0.6 and bright above: the text takes the colour with the greater contrast.
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if value < 0.6 else "black")
    axes.set_xticks(range(len(inner_networks)), inner_networks)
    axes.set_yticks(range(len(protocols)), protocols)
    axes.set(xlabel="inner network", ylabel="protocol")
    return save_figure(
        figure,
        path,
        title="Accuracy of new networks, %",
        caption=(
            "Mean accuracy of networks that are trained on the set, with its standard deviation over initial weights, "
            "for every protocol and inner network."
        ),
    )


# ---------------------------------------------------------------- the grid


@dataclass(frozen=True)
class _Cells:
    """The sizes of the cells of a grid of examples, in pixels of the examples.

    Attributes:
        width: Width of an example.
        height: Height of an example.
        strip: Height of the bars below an example, 0 for none.
        names: Height of the names of classes above an example, 0 for none.
        inches: Width of an example on the page in inches.
        is_image: Whether examples are drawn as pixels; otherwise as bars.
    """

    width: int
    height: int
    strip: float
    names: int
    inches: float
    is_image: bool

    @classmethod
    def of(cls, images: Tensor, *, columns: int, has_strip: bool = False, has_names: bool = False) -> "_Cells":
        """Return the cells for images ``[m, *in_shape]`` in columns, with a strip below and a name above if wanted."""
        shape = images.shape[1:]
        is_image = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))  # grey or RGB
        height, width = shape[-2:] if is_image else (_BARS_HEIGHT, _BARS_WIDTH)
        # About a third of the width: bars of ten labels are legible, and the example still dominates its cell.
        strip = 0.35 * width if has_strip else 0.0
        largest_width = _LARGEST_INCHES * min(1.0, width / height)
        inches = min(largest_width, max(_LEAST_INCHES, _GRID_INCHES / (1.08 * columns)))
        names = math.ceil(_NAME_INCHES * width / inches) if has_names else 0
        return cls(width, height, strip, names, inches, is_image)

    @property
    def across(self) -> int:
        """Pixels from an example to the next one in its row, with a gap of 8 % of its width."""
        return self.width + math.ceil(0.08 * self.width)

    @property
    def down(self) -> int:
        """Pixels from a row to the next; strips get 30 % of their height as an additional gap."""
        return self.height + self.names + math.ceil(1.3 * self.strip + 0.08 * self.width)

    def corners(self, places: NDArray[np.integer[Any]]) -> _Array:
        """Return the upper left corners ``[n, 2]`` of places (column, row) ``[n, 2]``."""
        return places * np.array([self.across, self.down], dtype=float) + [0, self.names]

    def middles(self, rows: int) -> list[float]:
        """Return the vertical positions of the centres of the examples of every row."""
        return [y * self.down + self.names + self.height / 2 for y in range(rows)]


def _by_class(classes: Tensor) -> list[list[int]]:
    """Return the positions of the examples of each class that occurs, in order of class, of ``MAX_CLASSES`` at most."""
    present = classes.unique()[:MAX_CLASSES]
    return [(classes == c).nonzero().flatten().tolist() for c in present]


def _page(cells: _Cells, rows: int, columns: int, panel: float = 0.0) -> tuple[Figure, Any, Any]:
    """Return a figure with axes for a grid and, ``panel`` inches high, for something below it (or None).

    The sizes are computed by hand, in inches: automatic layouts would stretch or shrink the examples.
    """
    pixel = cells.inches / cells.width
    width, height = columns * cells.across * pixel, rows * cells.down * pixel
    left, right = 0.6, 0.15  # margins for the names of rows and the numbers of the panel, and for the last of these
    below = panel + 0.5 if panel else 0.1  # with the axis of steps
    page = left + max(width, 3.0) + right, TITLE_INCHES + height + below
    figure = Figure(figsize=page)
    axes = figure.add_axes((left / page[0], below / page[1], width / page[0], height / page[1]))
    axes.set(xlim=(0, columns * cells.across), ylim=(rows * cells.down, 0))
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, labelsize=7)
    if not panel:
        return figure, axes, None
    box = (left / page[0], 0.4 / page[1], 1 - (left + right) / page[0], panel / page[1])
    return figure, axes, figure.add_axes(box)


def _draw(axes: Any, cells: _Cells, images: Tensor, places: NDArray[np.integer[Any]]) -> None:
    """Draw images ``[n, *in_shape]`` at places (column, row) ``[n, 2]``."""
    numbers = _numbers(images)
    if not cells.is_image:
        corners = cells.corners(places) + np.array([0, cells.height])
        size = float(cells.width), float(cells.height)
        _bars(axes, numbers.reshape(len(numbers), -1), corners, *size, ROLE_COLOURS["teacher"])
        return
    low, high = np.percentile(numbers, _PERCENTILES)
    scaled = ((numbers - low) / ((high - low) or 1)).clip(0, 1)  # 1: constant images have no range
    pixels = scaled[:, None] if scaled.ndim == 3 else scaled
    canvas = np.ones(((places[:, 1].max() + 1) * cells.down, (places[:, 0].max() + 1) * cells.across, 3))
    for image, (x, y) in zip(np.moveaxis(pixels, 1, -1), cells.corners(places).astype(int), strict=True):
        canvas[y : y + cells.height, x : x + cells.width] = image
    limits = axes.axis()  # imshow would change them
    axes.imshow(canvas, extent=(0, canvas.shape[1], canvas.shape[0], 0), aspect="auto", **NEAREST)
    axes.axis(limits)


def _bars(axes: Any, values: _Array, corners: _Array, width: float, height: float, colour: str) -> None:
    """Draw each row of values ``[n, d]`` as bars in a box with a lower left corner ``[n, 2]``; all have one scale."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)  # the line at 0 is always inside of the box
    scale = height / ((high - low) or 1)
    # All bars of one example are a single outline, which goes up and along for each bar: d times fewer shapes.
    steps = np.repeat(np.linspace(0, width, values.shape[1] + 1), 2)
    tops = np.pad(np.repeat(values, 2, axis=1), ((0, 0), (1, 1)))
    outlines = np.stack([steps + corners[:, :1], corners[:, 1:] - scale * (tops - low)], -1)
    axes.add_collection(PolyCollection(list(outlines), facecolor=colour, linewidth=0), autolim=False)
    zero = corners[:, 1] + scale * low
    axes.hlines(zero, corners[:, 0], corners[:, 0] + width, color="#999999", linewidth=0.4)


def _draw_schedules(axes: Any, synthetic_set: SyntheticSet) -> None:
    """Draw the step sizes of every inner network over the steps."""
    steps = synthetic_set.steps
    of_network = styles(synthetic_set.inner_networks)
    for name in synthetic_set.inner_networks:
        sizes = synthetic_set.schedule(name).detach().cpu().tolist()
        # Markers show a schedule of one step, which a line does not; beyond 50 steps they would cover each other.
        look = of_network[name].of_line(has_markers=steps <= 50)
        axes.plot(range(1, steps + 1), sizes, linewidth=1, markersize=3, label=display_name(name), **look)
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_ylim(0, 1.15 * max(axes.dataLim.ymax, 1e-12))
    axes.set_xlabel("step", fontsize=7)
    axes.set_ylabel("step size", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", integer=True, nbins=5, min_n_ticks=1)
    axes.legend(fontsize=7)


def _numbers(values: Tensor) -> _Array:
    """Return the values as a finite array, with 0 for NaN and infinity: a set that diverged can still be drawn."""
    return values.detach().double().cpu().nan_to_num(0, 0, 0).numpy()
