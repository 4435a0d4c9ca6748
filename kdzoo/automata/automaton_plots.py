"""Drawings of automata: as a graph if its labels fit on a page, otherwise as a table of transitions."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path as Path2D
from numpy.typing import NDArray

from kdzoo.automata.graph_layout import RADIUS, Layout, arrange
from kdzoo.automata.labels import Edge, edge_labels, state_label, token_names
from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.plotting.style import DPI, NEAREST, ROLE_COLOURS, TITLE_INCHES, save_figure, without_math

# A graph of more states or edges is a tangle, even where labels find a place.
MAX_STATES, MAX_EDGES = 24, 72
# Largest sides in inches of a table with text in its cells, and of one without.
_TEXT_TABLE, _TABLE = 12.0, 8.0

_INK, _PAPER, _BEGIN = "#333333", "#f4f1ea", ROLE_COLOURS["student"]
# Points of the text of labels and states, and of the note below the drawing.
_LABEL_SIZE, _STATE_SIZE, _NOTE_SIZE = 6.5, 7, 7
# Space around the drawing, and the least width of the figure, in inches.
_MARGIN, _LEAST_WIDTH = 0.15, 4.5

_GRAPH_NOTE = (
    "Circles are states, with their number and, in a double ring, the probability that the string ends there. "
    "A thick ring in colour: the string may start there. Arrows have the tokens that they read, with their "
    "probabilities; the wider, the more likely."
)
_TABLE_CAPTION = (
    "Probability of a transition from the state of a row to that of a column, over all tokens; in the last column, the "
    "probability that the string ends."
)


def draw(pfa: PFA, path: str | Path, symbols: Sequence[str] | None = None, threshold: float = 0.01) -> Path:
    """Write a drawing of an automaton.

    Small automata are drawn as graphs: the width of an edge shows its probability, and its label lists the tokens with
    their probabilities, the most likely first. A state shows its index and, with a double ring, its stop probability.
    Initial states are highlighted. No label lies on another one or on a state; an automaton for which that is not
    possible is drawn as a table of the probabilities of its transitions.

    Args:
        pfa: The automaton.
        path: The file; its suffix decides on the format, such as .png, .svg or .pdf.
        symbols: Names of the S tokens; None for their numbers.
        threshold: Transitions with a smaller probability are not drawn, in [0, 1).

    Returns:
        The path.

    Raises:
        ConfigError: If the threshold is out of range, or there are not S names.
    """
    names = token_names(symbols, pfa.n_tokens)
    edges = list(edge_labels(pfa, names, validation.probability("threshold", threshold)))
    layout = None
    if pfa.states <= MAX_STATES and len(edges) <= MAX_EDGES:
        layout = arrange(pfa.states, edges, _text_sizes([edge.label for edge in edges]))
    title = f"Automaton of {pfa.states} state{'s' * (pfa.states > 1)}"
    if layout is None:
        return _draw_table(pfa, edges, Path(path), title)
    return _draw_graph(pfa, edges, layout, Path(path), title, threshold)


# ---------------------------------------------------------------- a graph


def _draw_graph(pfa: PFA, edges: Sequence[Edge], layout: Layout, path: Path, title: str, threshold: float) -> Path:
    """Draw everything where the layout says; one unit of the axes is one inch of the page."""
    width, height = layout.high - layout.low + 2 * _MARGIN
    page_width = max(float(width), _LEAST_WIDTH)
    # About 17 characters of the note fit into one inch, and its lines are 0.12 inches high.
    note = textwrap.fill(_GRAPH_NOTE, int(17 * (page_width - 0.3)))
    below = 0.12 * (note.count("\n") + 1) + 0.1
    page = page_width, float(height) + TITLE_INCHES + below
    figure = Figure(figsize=page)
    # Centred, if the note is wider than the drawing.
    axes = figure.add_axes(((page[0] - width) / 2 / page[0], below / page[1], width / page[0], height / page[1]))
    axes.set(xlim=(layout.low[0] - _MARGIN, layout.high[0] + _MARGIN))
    axes.set(ylim=(layout.low[1] - _MARGIN, layout.high[1] + _MARGIN))
    axes.set_axis_off()
    for edge, curve, centre in zip(edges, layout.curves, layout.labels, strict=True):
        _draw_arrow(axes, curve, edge)
        _write(axes, centre, edge.label)
    for k, (initial, stop) in enumerate(zip(pfa.initial.tolist(), pfa.stop.tolist(), strict=True)):
        label = state_label(k, stop)
        _draw_state(axes, layout.states[k], label, is_first=initial > threshold, is_last=stop > threshold)
    figure.text(0.15 / page[0], 0.06 / page[1], note, fontsize=_NOTE_SIZE, color=_INK, va="bottom", linespacing=1.15)
    return save_figure(figure, path, title=title, caption=_GRAPH_NOTE)


def _draw_arrow(axes: Any, curve: NDArray[np.floating], edge: Edge) -> None:
    # From half a point for unlikely edges to four points for certain ones, as in the DOT file.
    width = 0.5 + 3.5 * edge.probability
    head = f"-|>,head_length={4 + width},head_width={2 + 0.7 * width}"
    code = Path2D.CURVE3 if len(curve) == 3 else Path2D.CURVE4
    path = Path2D(curve, [Path2D.MOVETO, *[code] * (len(curve) - 1)])
    arrow = FancyArrowPatch(path=path, arrowstyle=head, mutation_scale=1, color=_INK, linewidth=width, zorder=1)
    arrow.set(joinstyle="miter", capstyle="butt")
    axes.add_patch(arrow)


def _draw_state(axes: Any, position: NDArray[np.floating], label: str, *, is_first: bool, is_last: bool) -> None:
    colour = _BEGIN if is_first else _INK
    width = 2.5 if is_first else 1.2
    centre = float(position[0]), float(position[1])
    axes.add_patch(Circle(centre, RADIUS, facecolor=_PAPER, edgecolor=colour, linewidth=width, zorder=2))
    if is_last:
        axes.add_patch(Circle(centre, 0.85 * RADIUS, fill=False, edgecolor=colour, linewidth=0.8, zorder=3))
    axes.text(*centre, label, ha="center", va="center", fontsize=_STATE_SIZE, linespacing=1.0, zorder=4)


def _write(axes: Any, position: NDArray[np.floating], label: str) -> None:
    box = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    look: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": _LABEL_SIZE,
        "linespacing": 1.0,
        "bbox": box,
        "zorder": 5,
    }
    axes.text(*position, without_math(label), **look)


def _text_sizes(labels: Sequence[str]) -> NDArray[np.floating]:
    """Return the width and height of each label on the page in inches ``[n, 2]``."""
    figure = Figure(dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    sizes = []
    for label in labels:
        text = figure.text(0, 0, without_math(label), fontsize=_LABEL_SIZE, linespacing=1.0)
        box = text.get_window_extent(renderer)
        sizes.append((box.width / figure.dpi, box.height / figure.dpi))
    # The box around a text adds a twentieth of the font size, in points, on each side.
    return np.reshape(sizes, (-1, 2)) + 2 * 0.05 * _LABEL_SIZE / 72


# ---------------------------------------------------------------- a table


def _strides() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    return (digit * 10**power for power in count() for digit in (1, 2, 5))


def _draw_table(pfa: PFA, edges: Sequence[Edge], path: Path, title: str) -> Path:
    """Draw the probabilities of the transitions as a table, with the tokens in its cells if they fit."""
    table = np.column_stack([pfa.transitions.sum(0).cpu().numpy(), pfa.stop.cpu().numpy()])
    rows, columns = table.shape
    cell = _text_sizes([edge.label for edge in edges]).max(0, initial=0.1) + 0.08
    has_text = bool((np.array([columns, rows]) * cell < _TEXT_TABLE).all())
    # Beyond the largest side, many states share the room.
    width, height = np.clip(
        np.array([columns, rows]) * (cell if has_text else 0.22), 4.0, _TEXT_TABLE if has_text else _TABLE
    )
    figure = Figure(figsize=(float(width) + 1.6, float(height) + 1.1), layout="constrained")
    axes = figure.subplots()
    # Unlikely transitions stay visible: a probability of 1 % has a tenth of the colour.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(table, cmap="Blues", norm=norm, aspect="auto", **NEAREST)
    figure.colorbar(image, label="probability", shrink=min(1.0, 4.0 / float(height)))
    if has_text:
        for edge in edges:
            ink = "white" if edge.probability > 0.4 else "black"
            look: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "fontsize": _LABEL_SIZE,
                "linespacing": 1.0,
                "color": ink,
            }
            axes.text(edge.target, edge.source, without_math(edge.label), **look)
    stride = next(step for step in _strides() if rows <= 24 * step)
    ticks = list(range(0, rows, stride))
    # The last numbers would run into the name of the last column.
    axes.set_xticks([*[tick for tick in ticks if tick <= rows - stride / 2], rows])
    axes.set_xticklabels([*[str(tick) for tick in ticks if tick <= rows - stride / 2], "end"])
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.axvline(rows - 0.5, color=_INK, linewidth=0.8)
    axes.set(xlabel="next state", ylabel="state")
    cells = " Cells list the tokens with their probabilities." if has_text else ""
    first = ", ".join(str(k) for k in pfa.initial.argsort(descending=True).tolist()[:3] if pfa.initial[k] > 0)
    return save_figure(figure, path, title=title, caption=f"{_TABLE_CAPTION}{cells} Most likely first states: {first}.")
