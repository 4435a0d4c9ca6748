"""Curves over the course of a computation: loss terms over steps, objectives over updates."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from kdzoo.plotting.style import ROLE_COLOURS, Style, display_name, log_ticks, save_figure, styles

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""The name of each curve -> (positions, values), two sequences of one length."""

# Up to so many points have markers, which would cover each other beyond.
MAX_MARKERS = 40
# Longer curves are smoothed, by the mean over a window of this share of their points.
SMOOTHED_FROM, WINDOW = 100, 0.05


@dataclass(frozen=True)
class TrainingCurves:
    """What was recorded in one training.

    Attributes:
        training: Loss terms of training batches over steps, from 1.
        validation: Loss terms of the validation split over epochs, from 1.
    """

    training: Curves = field(default_factory=dict)
    validation: Curves = field(default_factory=dict)


def loss_curves(trainings: Mapping[str, TrainingCurves], path: Path, *, measured: Collection[str] = ()) -> Path | None:
    """Draw the loss terms of several trainings, one row for each term: training on the left, validation on the right.

    The two panels of a row share their vertical axis, which is logarithmic if all values are positive and span a factor
    of ten or more, except for measured terms. Only finite values are drawn, and a panel without any is left out.

    Args:
        trainings: The curves of each training by role.
        path: Path of the PNG file.
        measured: Terms that were only recorded and had no effect on the training; they come last.

    Returns:
        The path, or None if there is nothing to draw.
    """
    rows = _rows(trainings, measured)
    if not rows:
        return None
    # Lower panels if there are many, so that the page does not become too long.
    figure = Figure(figsize=(7.5, 1.0 + (2.1 if len(rows) <= 4 else 1.6) * len(rows)), layout="constrained")
    grid = figure.add_gridspec(len(rows), 2)
    of_role = styles(trainings)
    for row, (term, panels) in enumerate(rows.items()):
        # A panel that is alone in its row takes the whole width.
        places = [grid[row, 0], grid[row, 1]] if len(panels) == 2 else [grid[row, :]]
        first = figure.add_subplot(places[0])
        axes_of_row = [first, *(figure.add_subplot(place, sharey=first) for place in places[1:])]
        for axes, (split, curves) in zip(axes_of_row, panels.items(), strict=True):
            _draw_panel(axes, curves, of_role, is_noisy=split == "training")
            axes.set_title(f"{display_name(term)}, {split}", fontsize=9)
            axes.set_xlabel("step" if split == "training" else "epoch")
        values = np.concatenate([curve[1] for curves in panels.values() for curve in curves.values()])
        # Divergences fall by orders of magnitude.
        if term not in measured and values.min() > 0 and values.max() >= 10 * values.min():
            first.set_yscale("log")
            log_ticks(first.yaxis)
        first.set_ylabel("mean, only measured" if term in measured else "mean loss")
    drawn = [role for role in trainings if any(role in curves for row in rows.values() for curves in row.values())]
    figure.legend(handles=[_legend_entry(role, of_role[role]) for role in drawn], loc="outside lower center", ncols=4)
    return save_figure(figure, path, title="Training curves", caption=_caption(rows))


def merge_curve(states: Sequence[int], objective: Sequence[float], path: Path) -> Path:
    """Draw the penalized objective of a sequence of state merges over the number of states, and mark its minimum.

    Args:
        states: Number of states after each merge, >= 1; drawn on a logarithmic axis.
        objective: Penalized cost at each of them, in nats.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(states, objective, linewidth=1, marker="o", markersize=2.5, color=ROLE_COLOURS["student"])
    best = int(np.argmin(objective))
    axes.scatter([states[best]], [objective[best]], color=ROLE_COLOURS["student"], zorder=3)
    axes.annotate(f"{states[best]} states", (states[best], objective[best]), xytext=(6, 10), textcoords="offset points")
    axes.set(xlabel="number of states", ylabel="penalized cost (nats)", xscale="log")
    log_ticks(axes.xaxis)
    return save_figure(
        figure,
        path,
        title="Merging of states",
        caption="Penalized objective over the number of states while states are merged, and its minimum.",
    )


def objective_curve(values: Sequence[float], path: Path) -> Path:
    """Draw the value of an objective after each update.

    Args:
        values: Values, the first one before any update.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    # Markers show how many updates there were: the iteration may stop after two.
    axes.plot(range(len(values)), values, linewidth=1, marker="o", markersize=3, color=ROLE_COLOURS["student"])
    axes.set(xlabel="update", ylabel="objective")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return save_figure(figure, path, title="Objective of the method", caption="Objective after each update.")


def smoothed(values: ArrayLike, window: int) -> NDArray[np.floating]:
    """Return the mean over a window around each value; at the ends, over the part of the window that exists.

    Args:
        values: Values, at least one.
        window: Number of values in the window, odd.

    Example:
        >>> smoothed([1.0, 2.0, 6.0, 4.0], 3).tolist()
        [1.5, 3.0, 4.0, 5.0]
    """
    given, kernel = np.asarray(values, dtype=float), np.ones(window)
    inside = slice(window // 2, window // 2 + len(given))
    return np.convolve(given, kernel)[inside] / np.convolve(np.ones(len(given)), kernel)[inside]


_Panel = dict[str, tuple[NDArray[np.integer], NDArray[np.floating]]]
"""A role -> (positions, values)."""


def _rows(trainings: Mapping[str, TrainingCurves], measured: Collection[str]) -> dict[str, dict[str, _Panel]]:
    """Return the finite points by term, split and role, without empty curves, panels and rows; measured terms last."""
    rows: dict[str, dict[str, _Panel]] = {}
    for split in ("training", "validation"):
        for role, of_role in trainings.items():
            curves = of_role.training if split == "training" else of_role.validation
            for term, (positions, values) in curves.items():
                finite = np.isfinite(np.asarray(values, dtype=float))
                if finite.any():
                    points = np.asarray(positions)[finite], np.asarray(values, dtype=float)[finite]
                    rows.setdefault(term, {}).setdefault(split, {})[role] = points
    return dict(sorted(rows.items(), key=lambda row: row[0] in measured))  # a stable sort: otherwise in their order


def _draw_panel(axes: Any, curves: _Panel, of_role: Mapping[str, Style], *, is_noisy: bool) -> None:
    """Draw lines, with markers if there are few points; long noisy ones are smoothed, with the values behind them."""
    for role, (positions, values) in curves.items():
        style, shown = of_role[role], values
        if is_noisy and len(values) >= SMOOTHED_FROM:
            axes.plot(positions, values, linewidth=0.6, alpha=0.3, color=style.colour)
            shown = smoothed(values, 2 * int(WINDOW * len(values) / 2) + 1)
        look = style.of_line(has_markers=len(values) <= MAX_MARKERS)
        axes.plot(positions, shown, linewidth=1.3, markersize=4, **look)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _legend_entry(role: str, style: Style) -> Line2D:
    look = style.of_line(has_markers=True)
    return Line2D([], [], linewidth=1.3, markersize=4, label=display_name(role), **look)


def _caption(rows: Mapping[str, dict[str, _Panel]]) -> str:
    splits = {split for panels in rows.values() for split in panels}
    places = {"training": "training batches over steps", "validation": "the validation split over epochs"}
    caption = f"Mean loss terms of {' and of '.join(places[split] for split in places if split in splits)}."
    lengths = [len(curve[0]) for panels in rows.values() for curve in panels.get("training", {}).values()]
    if max(lengths, default=0) >= SMOOTHED_FROM:
        caption += (
            f" Training curves of {SMOOTHED_FROM} values or more are smoothed: each point is the mean over a window of "
            f"{WINDOW:.0%} of the values around it; thin lines are the values themselves."
        )
    return caption
