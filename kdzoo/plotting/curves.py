"""Curves over the course of a computation: loss terms over steps, objectives over updates."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kdzoo.plotting.style import ROLE_COLOURS, save_figure

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""The name of each curve -> (steps, values), two sequences of one length."""


def loss_curves(terms: Curves, measured: Curves, path: Path) -> Path:
    """Draw loss terms over optimizer steps, in one panel for optimized terms and one for measured terms.

    The values of optimized terms have a logarithmic axis if one of them is positive. An empty panel is left out.

    Args:
        terms: Terms of the loss that was minimized.
        measured: Terms that were only recorded and had no effect on the training; on a linear axis.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    panels = [curves for curves in (terms, measured) if curves]
    figure = Figure(figsize=(6, 1.5 + 2.5 * len(panels)), layout="constrained")
    for axes, curves in zip(figure.subplots(max(len(panels), 1), squeeze=False)[:, 0], panels, strict=False):
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, label=name, linewidth=1)
        # Divergences fall by orders of magnitude. An axis without a single positive value cannot be logarithmic.
        if curves is terms and any(value > 0 for _, values in terms.values() for value in values):
            axes.set_yscale("log")
        axes.set(xlabel="optimizer step", ylabel="loss term (mean)" if curves is terms else "measured (mean)")
        axes.legend()
    return save_figure(
        figure,
        path,
        caption="Loss terms over optimizer steps; below, the terms that were only measured.",
    )


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
    axes.plot(states, objective, linewidth=1, color=ROLE_COLOURS["student"])
    best = int(np.argmin(objective))
    axes.scatter([states[best]], [objective[best]], color=ROLE_COLOURS["student"], zorder=3)
    axes.annotate(f"{states[best]} states", (states[best], objective[best]), xytext=(6, 10), textcoords="offset points")
    axes.set(xlabel="states", ylabel="penalised cost, nats", xscale="log")
    return save_figure(
        figure, path, caption="Penalized objective over the number of states while states are merged, and its minimum."
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
    axes.plot(range(len(values)), values, linewidth=1, marker=".", color=ROLE_COLOURS["student"])
    axes.set(xlabel="update", ylabel="objective")
    return save_figure(figure, path, caption="Objective after each update.")
