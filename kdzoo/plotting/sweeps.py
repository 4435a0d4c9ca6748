"""How a score depends on the settings of several runs: along one setting, over a grid of two, or over more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kdzoo.plotting.style import NEAREST, ROLE_COLOURS, log_ticks, save_figure

COLOURS = colormaps["viridis"]  # it stays ordered in grey print and for colour-blind readers
# Behind the values of an axis, which lines of runs cross.
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}


def score_over_settings(
    settings: Sequence[Mapping[str, Any]], scores: Sequence[float], deviations: Sequence[float], name: str, path: Path
) -> Path:
    """Draw scores over the settings that were varied: points along one, a heat map of two, or parallel coordinates.

    Args:
        settings: The varied settings of each run by name, all with the same names, at least one.
        scores: Score of each run.
        deviations: Standard deviation of each score over seeds; NaN for one seed.
        name: Name of the score.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    names = list(settings[0])
    cells = {tuple(str(value) for value in setting.values()) for setting in settings}
    sizes = [len({cell[i] for cell in cells}) for i in range(len(names))]
    if len(names) == 1:
        return _points(names[0], [setting[names[0]] for setting in settings], scores, deviations, name, path)
    if len(names) == 2 and len(cells) == len(settings) == sizes[0] * sizes[1]:
        return _heat_map(settings, scores, name, path)
    return _parallel_coordinates(settings, scores, name, path)


def ticks(values: Sequence[Any]) -> list[Any]:
    """Return the different values of a setting in the order of an axis: numbers and lists of them by size.

    Example:
        >>> ticks([4, 1, 4.0]), ticks([[64], [16, 16]]), ticks(["b", "a", "b"]), ticks([None, 2])
        ([1, 4], [[16, 16], [64]], ['b', 'a'], [None, 2])
    """
    different = [value for i, value in enumerate(values) if value not in values[:i]]
    are_comparable = all(map(_is_number, values)) or all(
        isinstance(value, list) and all(map(_is_number, value)) for value in values
    )
    return sorted(different) if are_comparable else different


def _points(
    setting: str, values: Sequence[Any], scores: Sequence[float], deviations: Sequence[float], name: str, path: Path
) -> Path:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    ordered = ticks(values)
    is_numeric = all(map(_is_number, values))
    positions = [float(value) if is_numeric else ordered.index(value) for value in values]
    order = np.argsort(positions, kind="stable")
    bars = np.nan_to_num(np.asarray(deviations, dtype=float))[order]
    x, y = np.asarray(positions, dtype=float)[order], np.asarray(scores, dtype=float)[order]
    style = "o-" if is_numeric else "o"  # there is nothing between two names that a line could stand for
    axes.errorbar(x, y, yerr=bars if bars.any() else None, fmt=style, capsize=3, color=ROLE_COLOURS["student"])
    if not is_numeric:
        axes.set_xticks(range(len(ordered)), [str(value) for value in ordered])
    elif x.min() > 0 and x.max() / x.min() >= 30:  # values that were chosen by factors, such as learning rates
        axes.set_xscale("log")
        log_ticks(axes.xaxis)
    axes.set(xlabel=setting, ylabel=name)
    caption = f"The student's {name} over {setting}" + (", with standard deviations over seeds." if bars.any() else ".")
    return save_figure(figure, path, title=f"{name} over {setting}", caption=caption)


def _heat_map(settings: Sequence[Mapping[str, Any]], scores: Sequence[float], name: str, path: Path) -> Path:
    row_name, column_name = settings[0]
    rows, columns = (ticks([setting[key] for setting in settings]) for key in (row_name, column_name))
    table = np.full((len(rows), len(columns)), np.nan)
    for setting, score in zip(settings, scores, strict=True):
        table[rows.index(setting[row_name]), columns.index(setting[column_name])] = score
    figure = Figure(figsize=(2.5 + 0.9 * len(columns), 1.8 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, cmap=COLOURS, aspect="auto", **NEAREST)
    figure.colorbar(image, label=name)
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (i, j), score in np.ndenumerate(table):
        axes.text(j, i, f"{score:.4g}", ha="center", va="center", color="white" if score <= middle else "black")
    axes.set_xticks(range(len(columns)), [str(value) for value in columns])
    axes.set_yticks(range(len(rows)), [str(value) for value in rows])
    axes.set(xlabel=column_name, ylabel=row_name)
    caption = f"The student's {name} for every pair of {row_name} and {column_name}."
    return save_figure(figure, path, title=f"{name} over {row_name} and {column_name}", caption=caption)


def _parallel_coordinates(
    settings: Sequence[Mapping[str, Any]], scores: Sequence[float], name: str, path: Path
) -> Path:
    names = list(settings[0])
    figure = Figure(figsize=(2.5 + 1.6 * len(names), 4), layout="constrained")
    axes = figure.subplots()
    low, high = min(scores), max(scores)
    heights = [[_height(score, [low, high]) for score in scores]]
    for i, key in reversed(list(enumerate(names))):
        values = [setting[key] for setting in settings]
        ordered = ticks(values)
        heights.insert(0, [_height(ordered.index(value), range(len(ordered))) for value in values])
        for value, height in zip(ordered, np.linspace(0, 1, len(ordered)) if len(ordered) > 1 else [0.5], strict=True):
            axes.text(i - 0.03, height, str(value), ha="right", va="center", fontsize=8, bbox=LABEL_BOX, zorder=3)
    colours = COLOURS(Normalize(low, high)(scores))
    for line, colour in zip(np.transpose(heights), colours, strict=True):
        axes.plot(range(len(names) + 1), line, color=colour, linewidth=1.5)
    for height in (0.0, 1.0):
        axes.text(len(names) + 0.03, height, f"{low + height * (high - low):.4g}", ha="left", va="center", fontsize=8)
    for i in range(len(names) + 1):
        axes.axvline(i, color="#808080", linewidth=0.8)
    axes.set_xticks(range(len(names) + 1), [*names, name])
    axes.set(yticks=[], xlim=(-0.4, len(names) + 0.4))
    axes.spines[:].set_visible(False)
    caption = f"Each line is one run: its settings, and the student's {name} on the right, which is also its colour."
    return save_figure(figure, path, title=f"{name} of all runs", caption=caption)


def _height(value: float, values: Sequence[float]) -> float:
    """Return the height of a value on an axis from 0 to 1; the middle if the axis has one value."""
    low, high = min(values), max(values)
    return 0.5 if low == high else (value - low) / (high - low)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
