"""Figures from plain numbers; every function writes one PNG and returns its path."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

ROLE_COLOURS = {"teacher": "#4c4c4c", "student": "#1b7f5c", "control": "#c8553d"}


def loss_curves(terms: Mapping[str, tuple[Sequence[int], Sequence[float]]], path: Path) -> Path:
    """Draw loss terms over optimizer steps; ``terms`` maps a name to (steps, values)."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, (steps, values) in terms.items():
        axes.plot(steps, values, label=name, linewidth=1)
    if any(value > 0 for _, values in terms.values() for value in values):
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel="loss term (mean)")
    axes.legend()
    return _save(figure, path)


def reliability_diagram(
    confidence: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_]]], path: Path, *, bins: int
) -> Path:
    """Draw accuracy against confidence; ``confidence`` maps a name to (confidence [n], correct [n])."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for name, (probability, correct) in confidence.items():
        place = np.minimum((probability * bins).astype(int), bins - 1)
        filled = [b for b in range(bins) if (place == b).any()]
        x = [probability[place == b].mean() for b in filled]
        y = [correct[place == b].mean() for b in filled]
        share = [(place == b).mean() for b in filled]
        colour = ROLE_COLOURS.get(name)
        axes.plot(x, y, linewidth=0.8, alpha=0.5, color=colour)
        axes.scatter(x, y, s=[8 + 150 * part for part in share], label=name, color=colour)  # larger: more samples
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.05), ylim=(0, 1.05))
    figure.legend(loc="outside upper center", ncols=len(confidence), markerscale=0.5)
    return _save(figure, path)


def recall_by_class(recall: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw grouped bars of the recall of every class; ``recall`` maps a name to [classes]."""
    classes = len(next(iter(recall.values())))
    figure = Figure(figsize=(max(5.0, 0.6 * classes), 3.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(recall)
    for i, (name, values) in enumerate(recall.items()):
        place = np.arange(classes) + (i - (len(recall) - 1) / 2) * width
        axes.bar(place, values, width, label=name, color=ROLE_COLOURS.get(name))
    axes.set(xlabel="class", ylabel="recall", xticks=np.arange(classes), ylim=(0, 1.02))
    figure.legend(loc="outside upper center", ncols=len(recall))
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
