"""Figures from plain numbers; every function writes one PNG and returns its path."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

ROLE_COLOURS = {"teacher": "#4c4c4c", "student": "#1b7f5c", "control": "#c8553d"}


Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""A name to (steps, values)."""


def loss_curves(terms: Curves, measured: Curves, path: Path) -> Path:
    """Draw loss terms over optimizer steps, and in a panel of their own those that were only measured."""
    panels = [one for one in (terms, measured) if one]
    figure = Figure(figsize=(6, 1.5 + 2.5 * len(panels)), layout="constrained")
    for axes, curves in zip(figure.subplots(max(len(panels), 1), squeeze=False)[:, 0], panels, strict=False):
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, label=name, linewidth=1)
        if curves is terms and any(value > 0 for _, values in terms.values() for value in values):
            axes.set_yscale("log")
        axes.set(xlabel="optimizer step", ylabel="loss term (mean)" if curves is terms else "measured (mean)")
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


def log_prob_scatter(
    x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path, *, reference: str
) -> Path:
    """Draw log-probabilities of strings under some models against those under a reference.

    Args:
        x: log-probability of each string under the reference, in nats [n].
        y: name of a model -> the same under that model [n].
        path: of the file.
        reference: what the reference is called.

    Strings that are impossible under one of the two are counted in the legend, not drawn.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in y.items():
        drawn = np.isfinite(x) & np.isfinite(values)
        label = name if drawn.all() else f"{name} ({np.sum(~drawn)} impossible)"
        axes.scatter(x[drawn], values[drawn], s=6, alpha=0.4, linewidths=0, label=label, color=ROLE_COLOURS.get(name))
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="#bbbbbb", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=f"log-probability of a string, {reference} (nats)", ylabel="log-probability, model (nats)")
    figure.legend(loc="outside upper center", ncols=len(y), markerscale=2)
    return _save(figure, path)


def clusters(points: NDArray[np.floating], labels: NDArray[np.integer], path: Path) -> Path:
    """Draw points [n, 2] coloured by their cluster [n]."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    x, y = np.asarray(points).T
    axes.scatter(x, y, c=np.asarray(labels) % 20, cmap="tab20", s=6, linewidths=0, alpha=0.7)
    axes.set(xlabel="first principal component", ylabel="second", title=f"{len(np.unique(labels))} states")
    return _save(figure, path)


def merge_path(states: Sequence[int], objective: Sequence[float], path: Path) -> Path:
    """Draw the penalised objective of a merge over the number of states that are left, and where it is lowest."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(states, objective, linewidth=1, color=ROLE_COLOURS["student"])
    best = int(np.argmin(objective))
    axes.scatter([states[best]], [objective[best]], color=ROLE_COLOURS["student"], zorder=3)
    axes.annotate(f"{states[best]} states", (states[best], objective[best]), xytext=(6, 10), textcoords="offset points")
    axes.set(xlabel="states", ylabel="penalised cost, nats", xscale="log")
    return _save(figure, path)


def objective_path(values: Sequence[float], path: Path) -> Path:
    """Draw an objective over the updates that lowered it."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(values)), values, linewidth=1, marker=".", color=ROLE_COLOURS["student"])
    axes.set(xlabel="update", ylabel="objective")
    return _save(figure, path)


def picture_rows(rows: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw pictures [n, c, h, w] with values in [0, 1], a row for each name; of two channels the first is drawn."""
    most = max(len(pictures) for pictures in rows.values())
    figure = Figure(figsize=(1.2 + 0.62 * most, 0.68 * len(rows)), layout="constrained")
    for axes, (name, pictures) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        strip = np.concatenate([np.pad(one, ((0, 0), (1, 1), (1, 1)), constant_values=1) for one in pictures], axis=2)
        colours = strip.transpose(1, 2, 0) if len(strip) == 3 else strip[0]
        axes.imshow(np.clip(colours, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
