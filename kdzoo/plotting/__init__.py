"""Figures from plain numbers; every function writes one PNG and returns its path."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

ROLE_COLOURS = {"teacher": "#4c4c4c", "student": "#1b7f5c", "control": "#c8553d"}
_DPI = 120
_SIDE = 64
"""Pixels of the file that the longer side of a small picture takes, about."""
_MASSES = (0.25, 0.5, 0.75, 0.95)
_NEAREST: dict[str, Any] = {"interpolation": "nearest"}


Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""A name to (steps, values)."""
Pairs = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Pairs of places, [pairs, 2, 2] as (row, column) in pixels, and their strengths >= 0 [pairs]."""


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

    TokenSequences that are impossible under one of the two are counted in the legend, not drawn.
    """
    return _scatter(x, y, path, f"log-probability of a string, {reference} (nats)", "log-probability, model (nats)")


def similarity_scatter(x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw the cosine similarities of pairs of texts under some models against those under the teacher.

    Args:
        x: similarity of each pair under the teacher [n].
        y: name of a model -> the same under that model [n].
        path: of the file.
    """
    return _scatter(x, y, path, "similarity of a pair, teacher", "similarity, model")


def _scatter(
    x: NDArray[np.floating], y: Mapping[str, NDArray[np.floating]], path: Path, x_name: str, y_name: str
) -> Path:
    """Draw values of models against those of a reference, and the line where they are equal."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in y.items():
        drawn = np.isfinite(x) & np.isfinite(values)
        label = name if drawn.all() else f"{name} ({np.sum(~drawn)} impossible)"
        axes.scatter(x[drawn], values[drawn], s=6, alpha=0.4, linewidths=0, label=label, color=ROLE_COLOURS.get(name))
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="#bbbbbb", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=x_name, ylabel=y_name)
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


def ranking(scores: Mapping[str, float], chosen: str, path: Path, *, xlabel: str, ylabel: str) -> Path:
    """Draw a bar for each named score that is finite, the largest on top; the chosen one has another colour."""
    shown = sorted((score, name) for name, score in scores.items() if np.isfinite(score))
    figure = Figure(figsize=(5, 1 + 0.2 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = ["C1" if name == chosen else "C0" for _, name in shown]
    bars = axes.barh([name for _, name in shown], [score for score, _ in shown], color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.8, len(shown) - 0.2))
    axes.margins(x=0.12)
    return _save(figure, path)


def objective_path(values: Sequence[float], path: Path) -> Path:
    """Draw an objective over the updates that lowered it."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(values)), values, linewidth=1, marker=".", color=ROLE_COLOURS["student"])
    axes.set(xlabel="update", ylabel="objective")
    return _save(figure, path)


def picture_rows(rows: Mapping[str, NDArray[np.floating]], path: Path) -> Path:
    """Draw pictures with values in [0, 1], a row for each name; each pixel is a square of whole pixels of the file.

    Args:
        rows: name -> pictures [n, c, h, w], all of one height and width; with less than three channels the first is
            drawn, in grey. NaN is drawn as 0.
        path: of the file.
    """
    height, width = next(iter(rows.values())).shape[2:]
    zoom = max(1, round(_SIDE / max(height, width)))
    canvas = _canvas([list(one) for one in rows.values()], zoom, gap=4)
    figure, axes = _framed(canvas, left=16 + 10 * max(map(len, rows)), below=8, above=8)
    middles = [y * (height * zoom + 4) + (height * zoom - 1) / 2 for y in range(len(rows))]
    axes.set_yticks(middles, [name.replace("_", " ") for name in rows])
    return _save(figure, path)


def picture_panels(panels: Mapping[str, NDArray[np.floating]], path: Path, *, xlabel: str, ylabel: str) -> Path:
    """Draw one large picture for each name, side by side; each pixel is a square of whole pixels of the file.

    Args:
        panels: name -> picture [c, h, w] with values in [0, 1], all of one height and width; see :func:`picture_rows`.
        path: of the file.
        xlabel: below all.
        ylabel: on the left.
    """
    height, width = next(iter(panels.values())).shape[1:]
    zoom = max(1, round(5 * _SIDE / max(height, width)))
    canvas = _canvas([list(panels.values())], zoom, gap=24)
    figure, axes = _framed(canvas, left=40, below=32, above=32)
    middles = [x * (width * zoom + 24) + (width * zoom - 1) / 2 for x in range(len(panels))]
    axes.set_xticks(middles, [name.replace("_", " ") for name in panels])
    axes.xaxis.tick_top()
    axes.set_xlabel(xlabel, fontsize=9)
    axes.xaxis.set_label_position("bottom")
    axes.set_ylabel(ylabel, fontsize=9)
    return _save(figure, path)


def pairs_on_pictures(
    pictures: NDArray[np.floating],
    rows: Mapping[str, Sequence[Pairs]],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
) -> Path:
    """Draw pictures with lines between pairs of places, the stronger the wider, and the greatest strength below each.

    Args:
        pictures: [n, h, w], one for each column.
        rows: name -> pairs of each column; a pair of one place is a point.
        columns: names of the columns.
        path: of the file.
        title: of the figure.
    """
    figure = Figure(figsize=(1.6 + 1.1 * len(columns), 0.7 + 1.4 * len(rows)), layout="constrained")
    figure.suptitle(textwrap.fill(title, 24 + 14 * len(columns)), fontsize=10)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (name, cells) in zip(grid, rows.items(), strict=True):
        for axes, picture, (places, strengths) in zip(line, pictures, cells, strict=True):
            axes.imshow(picture, cmap="Greys", **_NEAREST)
            strongest = float(strengths.max(initial=0))
            for (y, x), share in zip(places.transpose(0, 2, 1), strengths / (strongest or 1), strict=True):
                look = {"linewidth": 0.3 + 2.2 * share, "markersize": 1.5 + 2.5 * share, "alpha": 0.3 + 0.6 * share}
                axes.plot(x, y, marker="o", color=ROLE_COLOURS.get(name, "#33587a"), **look)
            axes.set(xticks=[], yticks=[], xlabel=f"{strongest:.2g}")
        line[0].set_ylabel(name.replace("_", " "), rotation="horizontal", ha="right", va="center")
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return _save(figure, path)


def pair_tables(tables: Mapping[str, tuple[Sequence[str], NDArray[np.floating]]], path: Path, *, title: str) -> Path:
    """Draw a square table of the strengths of all pairs for each name, side by side.

    Args:
        tables: name -> labels of the rows and columns, and the strengths [k, k], symmetric.
        path: of the file.
        title: of the figure.
    """
    figure = Figure(figsize=(1.0 + 3.8 * len(tables), 4.4), layout="constrained")
    figure.suptitle(textwrap.fill(title, 10 + 50 * len(tables)), fontsize=10)
    for axes, (name, (labels, strengths)) in zip(_side_by_side(figure, len(tables)), tables.items(), strict=True):
        drawn = axes.imshow(strengths, cmap="viridis", vmin=0, **_NEAREST)
        shown = list(range(0, len(labels), max(1, -(-len(labels) // 16))))
        axes.set_xticks(shown, [labels[i] for i in shown], fontsize=7, rotation="vertical")
        axes.set_yticks(shown, [labels[i] for i in shown], fontsize=7)
        axes.set_title(name.replace("_", " "), fontsize=9)
        figure.colorbar(drawn, ax=axes, shrink=0.7)
    return _save(figure, path)


def roll_rows(rows: Mapping[str, NDArray[np.floating]], path: Path, *, ylabel: str) -> Path:
    """Draw sequences of vectors with values in [0, 1] as dark cells, time to the right, a row for each name.

    Args:
        rows: name -> sequences [n, T, d], n and T the same for all. Elements below the lowest and above the highest one
            that is not always 0 are left out. NaN is drawn as 0.
        path: of the file.
        ylabel: what the elements are.
    """
    shown = {name: np.nan_to_num(one) for name, one in rows.items()}
    used = np.flatnonzero(np.any([one.any((0, 1)) for one in shown.values()], axis=0))
    low, high = (int(used[0]), int(used[-1])) if len(used) else (0, next(iter(shown.values())).shape[2] - 1)
    columns, steps = next(iter(shown.values())).shape[:2]
    size = 0.9 + 3 * columns, 0.6 + 1.6 * len(rows)
    figure = Figure(figsize=size)
    room = {"left": 0.8 / size[0], "right": 1 - 0.1 / size[0], "bottom": 0.5 / size[1], "top": 1 - 0.1 / size[1]}
    spaces = {**room, "wspace": 0.05, "hspace": 0.1}
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=spaces)
    box = (-0.5, steps - 0.5, low - 0.5, high + 0.5)
    for line, (name, sequences) in zip(grid, shown.items(), strict=True):
        for axes, one in zip(line, sequences, strict=True):
            cells = one[:, low : high + 1].T
            axes.imshow(cells, cmap="Greys", vmin=0, vmax=1, origin="lower", extent=box, aspect="auto", **_NEAREST)
        line[0].set_ylabel(f"{name.replace('_', ' ')}\n{ylabel}")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return _save(figure, path)


def density_panels(
    densities: Mapping[str, NDArray[np.floating]],
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    points: NDArray[np.floating],
    path: Path,
) -> Path:
    """Draw densities in the plane over observed points, a panel for each name.

    The lines go around the smallest regions that hold 25, 50, 75 and 95 % of the mass on the grid.

    Args:
        densities: name -> density on the grid [len(y), len(x)], not normalised; NaN is no density.
        x: of the grid, increasing.
        y: of the grid, increasing.
        points: [n, 2].
        path: of the file.
    """
    figure = Figure(figsize=(3.6 * len(densities), 3.8), layout="constrained")
    for axes, (name, density) in zip(_side_by_side(figure, len(densities)), densities.items(), strict=True):
        axes.scatter(*points.T, s=5, linewidths=0, color="#999999", alpha=0.7)
        levels = mass_levels(density, _MASSES)
        if len(levels):
            axes.contour(x, y, np.nan_to_num(density), levels, colors=ROLE_COLOURS.get(name, "#33587a"), linewidths=1.2)
        title = f"{name.replace('_', ' ')}{'' if len(levels) else ': no density here'}"
        axes.set(xlabel="first value", title=title, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    figure.axes[0].set_ylabel("second value")
    return _save(figure, path)


def mass_levels(density: NDArray[np.floating], masses: Sequence[float]) -> NDArray[np.floating]:
    """Return the densities above which shares of the mass on a grid lie, increasing; none where there is no mass.

    Args:
        density: on cells of one size, any shape, not normalised; NaN is no density.
        masses: shares, in (0, 1).

    Example:
        >>> mass_levels(np.array([4.0, 1.0, 3.0, 2.0]), [0.5, 0.9]).tolist()
        [2.0, 3.0]
    """
    falling = np.sort(np.nan_to_num(density).ravel())[::-1]
    reached = falling.cumsum()
    if not reached[-1] > 0:
        return np.empty(0)
    return np.unique(falling[np.searchsorted(reached, np.asarray(masses) * reached[-1])])


def _canvas(grid: Sequence[Sequence[NDArray[np.floating]]], zoom: int, gap: int) -> NDArray[np.floating]:
    """Return pictures [c, h, w] of one size in rows as one large one [H, W, 3], each pixel ``zoom`` pixels wide."""
    height, width = (side * zoom for side in grid[0][0].shape[1:])
    down, across = height + gap, width + gap
    canvas = np.ones((len(grid) * down - gap, max(map(len, grid)) * across - gap, 3))
    for y, line in enumerate(grid):
        for x, picture in enumerate(line):
            large = _colours(picture).repeat(zoom, 0).repeat(zoom, 1)
            canvas[y * down : y * down + height, x * across : x * across + width] = large
    return canvas


def _framed(canvas: NDArray[np.floating], *, left: int, below: int, above: int) -> tuple[Figure, Any]:
    """Return a figure and axes in which a pixel of the canvas is one of the file, with margins in pixels."""
    tall, wide = canvas.shape[:2]
    whole = left + wide + 8, below + tall + above
    figure = Figure(figsize=(whole[0] / _DPI, whole[1] / _DPI))
    axes = figure.add_axes((left / whole[0], below / whole[1], wide / whole[0], tall / whole[1]))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, labelsize=9)
    return figure, axes


def _side_by_side(figure: Figure, count: int) -> list[Any]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _colours(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a picture [c, h, w] as red, green and blue in [0, 1], [h, w, 3]."""
    three = picture if len(picture) == 3 else picture[:1].repeat(3, 0)
    return np.clip(np.nan_to_num(three), 0, 1).transpose(1, 2, 0)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return path
