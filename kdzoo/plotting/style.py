"""Settings that all figures share, and the one function that writes a figure to a file."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Style:
    """How a model is drawn.

    Attributes:
        colour: Colour of its lines, markers and bars.
        marker: Marker of matplotlib.
        line: Line style of matplotlib: a name, or an offset and the lengths of dashes and gaps in points.
        hatch: Pattern on its bars, "" for none.
    """

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    hatch: str = ""

    def of_line(self, *, has_markers: bool) -> dict[str, Any]:
        """Return the arguments of ``Axes.plot`` and ``Line2D`` for a line of this model."""
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker if has_markers else ""}

    def of_points(self) -> dict[str, Any]:
        """Return the arguments of ``Axes.scatter``; the points are transparent, which shows where they pile up."""
        return {"color": self.colour, "marker": self.marker, "alpha": 0.6, "linewidths": 0}


# One style per role, the same in every figure, so that the figures of a report can be read without their legends. The
# colours differ in lightness as well, for grey print, and the three lines and markers differ without any colour.
ROLE_STYLES = {
    "teacher": Style("#1a1a1a", "s", "--"),
    "student": Style("#0068a5", "o", "-"),
    "control": Style("#d67f00", "^", "-.", "//"),
}
ROLE_COLOURS = {role: style.colour for role, style in ROLE_STYLES.items()}

# Other models, such as baselines, take these in order. The colours, of which two are from Okabe & Ito, "Color universal
# design", 2008, and two from Tol, "Colour schemes", 2021, can be told apart from the roles by the colour-blind.
OTHER_STYLES = (
    Style("#882255", "D", ":", "xx"),
    Style("#56b4e9", "v", (0, (5, 1, 1, 1, 1, 1)), ".."),
    Style("#cc79a7", "P", (0, (1, 3)), "\\\\"),
    Style("#ddcc77", "X", (0, (8, 3)), "--"),
)

# Colour of what belongs to no role, such as a single model in a panel of its own.
OTHER_COLOUR = OTHER_STYLES[0].colour

# Guide lines, such as the diagonal "model equals reference".
GUIDE_COLOUR = "#bbbbbb"

# Pixels per inch of every file. More makes sharper text and larger files; ``images.py`` counts pixels by it.
DPI = 120

# Font size of titles in points, and how many of their characters fit into one inch.
TITLE_SIZE, TITLE_CHARACTERS = 11, 11
# Space of a title of one line at the top of a figure without a layout engine, in inches.
TITLE_INCHES = 0.32

# Cells and pixels keep sharp borders: matplotlib's default smooths an image that it resamples, which would invent
# values between neighbouring cells.
NEAREST: dict[str, Any] = {"interpolation": "nearest"}


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return the style of each model: that of its role, or the next one of ``OTHER_STYLES``.

    Example:
        >>> {name: style.marker for name, style in styles(["student", "herding", "mean"]).items()}
        {'student': 'o', 'herding': 'D', 'mean': 'v'}
    """
    others = cycle(OTHER_STYLES)
    return {name: ROLE_STYLES[name] if name in ROLE_STYLES else next(others) for name in names}


def cluster_style(index: int) -> Style:
    """Return the style of a cluster by its number; clusters of different markers stay apart in grey print.

    There are seven markers and four colours, so that 28 clusters have different styles.

    Example:
        >>> [(style.marker, style.colour) for style in map(cluster_style, (0, 4))]
        [('s', '#882255'), ('v', '#882255')]
    """
    markers = [style.marker for style in (*ROLE_STYLES.values(), *OTHER_STYLES)]
    colour = OTHER_STYLES[index % len(OTHER_STYLES)].colour
    return Style(colour, markers[index % len(markers)], "")


def save_figure(figure: Figure, path: Path, *, title: str, caption: str) -> Path:
    """Write a figure with its title to a file, create missing folders, and return the path.

    Args:
        figure: The figure. One without a layout engine has kept ``TITLE_INCHES`` free at its top.
        path: Path of the file; its ending chooses the format.
        title: What the figure shows, in a few words; it is wrapped at the width of the figure.
        caption: One or two sentences that say what is drawn. A PNG stores them, and the report finds them there.
    """
    width, height = figure.get_size_inches()
    place: dict[str, Any] = {} if figure.get_layout_engine() else {"y": 1 - 0.08 / height}
    lines = textwrap.fill(title, max(12, int(TITLE_CHARACTERS * width)))
    figure.suptitle(without_math(lines), fontsize=TITLE_SIZE, **place)
    path.parent.mkdir(parents=True, exist_ok=True)
    # "Description" is a keyword of the PNG format; other formats have other keywords.
    metadata = {"Description": caption} if path.suffix.lower() == ".png" else None
    figure.savefig(path, dpi=DPI, metadata=metadata)
    return path


def log_ticks(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis as 0.01 and 50, where matplotlib would typeset powers of ten.

    Building its parser of formulas takes half a second, as much as all figures of a small run.

    Args:
        axis: The axis, after its values were drawn.
    """
    low, high = axis.get_view_interval()
    # An axis of few decades would have one or two numbers without those between powers of ten.
    between = "25" if high < 100 * low else ""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")


def points_legend(figure: Figure, columns: int) -> None:
    """Add a legend of scattered points below the axes, whose markers are neither transparent nor of their size."""
    legend: Any = figure.legend(loc="outside lower center", ncols=columns)
    for handle in legend.legend_handles:
        handle.set(alpha=1, sizes=[36])


def axes_row(figure: Figure, count: int) -> list[Any]:
    """Return ``count`` axes side by side; always a list, also for one."""
    return list(figure.subplots(1, count, squeeze=False)[0])


def display_name(name: str) -> str:
    """Return a configuration key as the label of a figure, with spaces instead of underscores."""
    return name.replace("_", " ")


def without_math(text: str) -> str:
    """Return a text in which matplotlib does not take a dollar sign for the start of a formula."""
    return text.replace("$", r"\$")
