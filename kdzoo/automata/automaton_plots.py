"""Drawings of automata: by Graphviz if ``dot`` is installed, otherwise by networkx and matplotlib."""

import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path as Path2D

from kdzoo.automata.exchange.dot import to_dot
from kdzoo.automata.labels import Edge, edge_labels, state_label, token_names
from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.plotting.style import save_figure

# Radius of a state, in units of the mean length of an edge: large enough for a number and a probability.
_RADIUS = 0.16

# How far an arrow bows out, as a share of its length: enough to separate it from the arrow back.
_BEND = 0.18

_INK, _PAPER, _BEGIN = "#333333", "#f4f1ea", "#1b7f5c"

_Point = npt.NDArray[np.float64]


def draw(pfa: PFA, path: str | Path, symbols: Sequence[str] | None = None, threshold: float = 0.01) -> Path:
    """Write a drawing of an automaton, with Graphviz if its ``dot`` is installed and with matplotlib otherwise.

    The width of an edge shows its probability; its label lists the tokens with their probabilities, the most likely
    first. A state shows its index and, with a double ring, its stop probability. Initial states are highlighted.

    Args:
        pfa: The automaton.
        path: The file; its suffix decides on the format, such as .png, .svg or .pdf.
        symbols: Names of the S tokens; None for their numbers.
        threshold: Transitions with a smaller probability are not drawn, in [0, 1).

    Returns:
        The path.

    Raises:
        ConfigError: If the threshold is out of range, there are not S names, or Graphviz does not know the format.
    """
    path = Path(path)
    program = shutil.which("dot")
    if program is None:
        return draw_with_matplotlib(pfa, path, symbols, threshold)
    text = to_dot(pfa, symbols, threshold)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [program, f"-T{path.suffix[1:] or 'png'}", "-o", str(path)]
    # check=False: dot explains a wrong format on stderr, which CalledProcessError would not show.
    process = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if process.returncode:
        raise ConfigError(f"dot cannot draw {path}: {process.stderr.strip()}")
    return path


def draw_with_matplotlib(
    pfa: PFA, path: str | Path, symbols: Sequence[str] | None = None, threshold: float = 0.01
) -> Path:
    """Write a drawing of an automaton without Graphviz; see :func:`draw`."""
    names = token_names(symbols, pfa.n_tokens)
    threshold = validation.probability("threshold", threshold)
    edges = list(edge_labels(pfa, names, threshold))
    positions = _layout(pfa.states, edges)
    # 1.3 inches for each edge length keep labels of six points apart; 2.5 inches leave room for loops at the border.
    width, height = 1.3 * np.ptp(positions, axis=0) + 2.5
    figure = Figure(figsize=(float(width), float(height)), layout="constrained")
    axes = figure.subplots()
    for edge in edges:
        if edge.source == edge.target:
            _draw_loop(axes, positions[edge.source], _free_side(edge.source, positions, edges), edge)
        else:
            _draw_arc(axes, positions[edge.source], positions[edge.target], edge)
    for k, (initial, stop) in enumerate(zip(pfa.initial.tolist(), pfa.stop.tolist(), strict=True)):
        _draw_state(axes, positions[k], state_label(k, stop), is_first=initial > threshold, is_last=stop > threshold)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.margins(0.08)
    axes.set_axis_off()
    caption = "States with their probabilities to stop, and transitions with their symbols and probabilities."
    return save_figure(figure, Path(path), caption=caption)


def _layout(states: int, edges: Sequence[Edge]) -> _Point:
    """Return the position of each state ``[K, 2]``, scaled so that the mean length of an edge is near 1."""
    graph = nx.Graph()
    graph.add_nodes_from(range(states))
    graph.add_edges_from((edge.source, edge.target) for edge in edges if edge.source != edge.target)
    # Kamada-Kawai needs a connected graph, so the components are laid out one by one, from left to right.
    components = [graph.subgraph(nodes) for nodes in sorted(nx.connected_components(graph), key=min)]
    positions = np.zeros((states, 2))
    left = 0.0
    for component in components:
        nodes = sorted(component)
        layout = nx.kamada_kawai_layout(component)
        points = np.array([layout[k] for k in nodes])
        lengths = [math.dist(layout[a], layout[b]) for a, b in component.edges]
        # A little more room with many edges, whose labels would otherwise overlap.
        points = points / (np.mean(lengths) if lengths else 1.0) * (1.2 + 0.1 * math.log1p(len(edges)))
        positions[nodes] = points - points.min(0) + [left, 0]
        left += float(np.ptp(points[:, 0])) + 1
    return positions


def _free_side(state: int, positions: _Point, edges: Sequence[Edge]) -> float:
    """Return the direction, as an angle, in the middle of the widest gap between a state's neighbours."""
    neighbours = {edge.source + edge.target - state for edge in edges if state in (edge.source, edge.target)} - {state}
    if not neighbours:
        return math.pi / 2
    steps = positions[sorted(neighbours)] - positions[state]
    angles = np.sort(np.arctan2(steps[:, 1], steps[:, 0]))
    gaps = np.diff(angles, append=angles[0] + 2 * math.pi)
    return float(angles[gaps.argmax()] + gaps.max() / 2)


def _draw_arc(axes: Any, start: _Point, end: _Point, edge: Edge) -> None:
    """Draw a bowed arrow, which the arrow back does not cover, with its label at the middle of the bow."""
    along = end - start
    top = (start + end) / 2 + _BEND * np.array([along[1], -along[0]])
    tips = [point + _RADIUS * (top - point) / np.linalg.norm(top - point) for point in (start, end)]
    _arrow(axes, Path2D([tips[0], top, tips[1]], [Path2D.MOVETO, Path2D.CURVE3, Path2D.CURVE3]), edge)
    # The middle of a quadratic Bezier curve.
    _write(axes, (tips[0] + 2 * top + tips[1]) / 4, edge.label)


def _draw_loop(axes: Any, position: _Point, angle: float, edge: Edge) -> None:
    """Draw an arrow from a state to itself in a direction."""
    tips = [position + _RADIUS * _unit(angle + turn) for turn in (0.5, -0.5)]
    # Control points of a cubic curve, 4.5 radii away: the loop then reaches to about 3.3 radii.
    far = [position + 4.5 * _RADIUS * _unit(angle + turn) for turn in (0.45, -0.45)]
    _arrow(axes, Path2D([tips[0], *far, tips[1]], [Path2D.MOVETO, *[Path2D.CURVE4] * 3]), edge)
    _write(axes, position + 3.7 * _RADIUS * _unit(angle), edge.label)


def _arrow(axes: Any, path: Path2D, edge: Edge) -> None:
    # From half a point for unlikely edges to four points for certain ones, as in the DOT file.
    width = 0.5 + 3.5 * edge.probability
    head = f"-|>,head_length={4 + width},head_width={2 + 0.7 * width}"
    arrow = FancyArrowPatch(path=path, arrowstyle=head, mutation_scale=1, color=_INK, linewidth=width, zorder=1)
    arrow.set(joinstyle="miter", capstyle="butt")
    axes.add_patch(arrow)


def _unit(angle: float) -> _Point:
    return np.array([math.cos(angle), math.sin(angle)])


def _draw_state(axes: Any, position: _Point, label: str, *, is_first: bool, is_last: bool) -> None:
    colour = _BEGIN if is_first else _INK
    width = 2.5 if is_first else 1.2
    centre = float(position[0]), float(position[1])
    axes.add_patch(Circle(centre, _RADIUS, facecolor=_PAPER, edgecolor=colour, linewidth=width, zorder=2))
    if is_last:
        axes.add_patch(Circle(centre, 0.85 * _RADIUS, fill=False, edgecolor=colour, linewidth=0.8, zorder=3))
    axes.text(*centre, label, ha="center", va="center", fontsize=7, zorder=4)


def _write(axes: Any, position: _Point, label: str) -> None:
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    axes.text(
        *position, _without_math(label), ha="center", va="center", fontsize=6, linespacing=1.0, bbox=box, zorder=5
    )


def _without_math(label: str) -> str:
    """Return a label in which matplotlib does not take a dollar sign for the start of a formula."""
    return label.replace("$", r"\$")
