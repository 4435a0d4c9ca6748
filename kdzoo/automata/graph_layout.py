"""Where the states, arrows and labels of a drawing of an automaton are; all lengths are in inches on the page.

Kamada & Kawai's algorithm places the states, such that distances on the page follow numbers of edges. Then every label
takes the best free place on or beside its arrow. If a label finds none, the drawing is enlarged and the search starts
again, so that a finished layout has no label on another label or on a state.

References:
    Kamada & Kawai 1989, "An algorithm for drawing general undirected graphs".
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kdzoo.automata.labels import Edge

# Radius of a state: large enough for a number and a probability of seven points.
RADIUS = 0.19
# Mean lengths of an edge that are tried in turn, and the largest side of the drawing.
LENGTHS, MAX_SIDE = (1.2, 1.45, 1.75, 2.1, 2.5, 3.0), 13.0
# How far an arrow may bow out, as a share of its length, which separates it from the arrow back and leads it around a
# state that is in its way. An arrow without one back may be straight.
BENDS = (0.16, 0.3, 0.45, 0.6)
# Positions of a label along its arrow, the best first.
PLACES = (0.5, 0.42, 0.58, 0.35, 0.65, 0.28, 0.72, 0.22, 0.78)
# Free space around labels and states.
GAP = 0.03
# Points of an arrow by which it is tested what the arrow runs through.
SAMPLES = 24

Points = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Layout:
    """Positions of everything in a drawing.

    Attributes:
        states: Centre of each state ``[K, 2]``.
        curves: Control points of the Bezier curve of each edge: three of an arc, four of a loop.
        labels: Centre of the label of each edge ``[E, 2]``.
        low: Lower left corner of the drawing ``[2]``.
        high: Upper right corner of the drawing ``[2]``.
    """

    states: Points
    curves: list[Points]
    labels: Points
    low: Points
    high: Points


def arrange(n_states: int, edges: Sequence[Edge], sizes: Points) -> Layout | None:
    """Return a layout without overlapping labels, the smallest that is found, or None if there is none on one page.

    Args:
        n_states: Number of states K, >= 1.
        edges: The arrows.
        sizes: Width and height of the label of each edge ``[E, 2]``.
    """
    unit = unit_positions(n_states, edges)
    for length in LENGTHS:
        states = unit * length
        if (np.ptp(states, axis=0) > MAX_SIDE).any():
            return None
        if _least_distance(states) < 2 * RADIUS + 4 * GAP:
            continue
        curves = _curves(states, edges)
        labels = _place_labels(states, curves, sizes)
        if labels is not None:
            corners = [states - 1.3 * RADIUS, states + 1.3 * RADIUS, labels - sizes / 2, labels + sizes / 2]
            extent = np.concatenate([*corners, *map(sample, curves)])
            return Layout(states, curves, labels, extent.min(0), extent.max(0))
    return None


def unit_positions(n_states: int, edges: Sequence[Edge]) -> Points:
    """Return the position of each state ``[K, 2]``, scaled so that the mean length of an edge is 1.

    Parts of the automaton that are not connected stand side by side.
    """
    import networkx as nx  # here, because only drawings need it

    graph = nx.Graph()
    graph.add_nodes_from(range(n_states))
    graph.add_edges_from((edge.source, edge.target) for edge in edges if edge.source != edge.target)
    positions, left = np.zeros((n_states, 2)), 0.0
    for component in sorted(nx.connected_components(graph), key=min):
        part, nodes = graph.subgraph(component), sorted(component)
        layout = nx.kamada_kawai_layout(part, pos=_start(part, nodes))
        points = np.array([layout[k] for k in nodes])
        lengths = [math.dist(layout[a], layout[b]) for a, b in part.edges]
        points = points / (np.mean(lengths) if lengths else 1.0)
        positions[nodes] = points - points.min(0) + [left, 0]
        left += float(np.ptp(points[:, 0])) + 1
    return positions


def sample(curve: Points) -> Points:
    """Return points ``[SAMPLES, 2]`` at equal steps along a Bezier curve, with both ends."""
    return bezier(curve, np.linspace(0, 1, SAMPLES))


def bezier(curve: Points, t: Points) -> Points:
    """Return the points of a Bezier curve with control points ``[n, 2]`` at ``t`` in [0, 1], ``[len(t), 2]``."""
    degree = len(curve) - 1
    weights = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
    return np.stack(weights, 1) @ curve


def _start(graph: Any, nodes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return positions to start from: states further from the first one stand further to the right."""
    import networkx as nx

    distance = nx.single_source_shortest_path_length(graph, nodes[0])
    layers: dict[int, list[int]] = {}
    for node in nodes:
        layers.setdefault(distance[node], []).append(node)
    return {node: (float(x), i - (len(layer) - 1) / 2) for x, layer in layers.items() for i, node in enumerate(layer)}


def _least_distance(points: Points) -> float:
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    return float(distances[~np.eye(len(points), dtype=bool)].min(initial=math.inf))


# ---------------------------------------------------------------- arrows


def _curves(states: Points, edges: Sequence[Edge]) -> list[Points]:
    """Return the curve of each edge, chosen such that it runs through no other state if that is possible."""
    pairs = {(edge.source, edge.target) for edge in edges}
    curves = []
    for edge in edges:
        if edge.source == edge.target:
            candidates = [_loop(states[edge.source], angle) for angle in _free_sides(edge.source, states, edges)]
        else:
            is_alone = (edge.target, edge.source) not in pairs
            bends = [0.0, *(sign * bend for bend in BENDS for sign in (1, -1))] if is_alone else BENDS
            candidates = [_arc(states[edge.source], states[edge.target], bend) for bend in bends]
        others = np.delete(states, [edge.source, edge.target], axis=0)
        clearances = [_clearance(curve, others) for curve in candidates]
        is_clear = [clearance > RADIUS + GAP for clearance in clearances]
        curves.append(candidates[is_clear.index(True) if any(is_clear) else int(np.argmax(clearances))])
    return curves


def _arc(start: Points, end: Points, bend: float) -> Points:
    """Return a bowed curve from the edge of a state to that of another."""
    along = end - start
    top = (start + end) / 2 + bend * np.array([along[1], -along[0]])
    tips = [point + RADIUS * (top - point) / np.linalg.norm(top - point) for point in (start, end)]
    return np.array([tips[0], top, tips[1]])


def _loop(position: Points, angle: float) -> Points:
    """Return a curve from a state to itself in a direction; it reaches to about 3.3 radii."""
    tips = [position + RADIUS * _unit(angle + turn) for turn in (0.5, -0.5)]
    far = [position + 4.5 * RADIUS * _unit(angle + turn) for turn in (0.45, -0.45)]
    return np.array([tips[0], *far, tips[1]])


def _free_sides(state: int, states: Points, edges: Sequence[Edge]) -> list[float]:
    """Return directions as angles; the first is the middle of the widest gap between the neighbours of a state."""
    # The sum of the two ends of an edge, minus the state, is the other end.
    neighbours = {edge.source + edge.target - state for edge in edges if state in (edge.source, edge.target)} - {state}
    best = math.pi / 2
    if neighbours:
        steps = states[sorted(neighbours)] - states[state]
        angles = np.sort(np.arctan2(steps[:, 1], steps[:, 0]))
        gaps = np.diff(angles, append=angles[0] + 2 * math.pi)
        best = float(angles[gaps.argmax()] + gaps.max() / 2)
    turns = math.pi / 8 * np.arange(1, 9)
    return [best, *(best + sign * turn for turn in turns for sign in (1, -1))]


def _clearance(curve: Points, states: Points) -> float:
    """Return the least distance of a curve from the centres of states."""
    return float(np.linalg.norm(sample(curve)[:, None] - states, axis=2).min(initial=math.inf))


def _unit(angle: float) -> Points:
    return np.array([math.cos(angle), math.sin(angle)])


# ---------------------------------------------------------------- labels


def _place_labels(states: Points, curves: Sequence[Points], sizes: Points) -> Points | None:
    """Return the centre of each label, large labels first, or None if one finds no free place."""
    centres = np.zeros((len(curves), 2))
    placed: list[int] = []
    samples = np.array([sample(curve) for curve in curves]).reshape(len(curves), SAMPLES, 2)
    for i in np.argsort(-sizes.prod(1), kind="stable"):
        others = np.delete(samples, i, axis=0).reshape(-1, 2)
        best = math.inf
        for centre, detour in _candidates(curves[i], sizes[i]):
            if detour >= best or _hits_state(centre, sizes[i], states):
                continue
            if any((np.abs(centre - centres[j]) < (sizes[i] + sizes[j]) / 2 + GAP).all() for j in placed):
                continue
            # A label on a foreign arrow could be taken for that arrow's label, and its own arrow has to stay visible.
            crossings = _inside(others, centre, sizes[i])
            hidden = max(0, _inside(samples[i], centre, sizes[i]) - SAMPLES // 3)
            cost = detour + crossings + 0.3 * hidden
            if cost < best:
                best, centres[i] = cost, centre
        if best == math.inf:
            return None
        placed.append(i)
    return centres


def _inside(points: Points, centre: Points, size: Points) -> int:
    """Return how many points are in a box."""
    return int((np.abs(points - centre) < size / 2).all(1).sum())


def _candidates(curve: Points, size: Points) -> Iterator[tuple[Points, float]]:
    """Yield centres of a label with how far they are from the ideal place, which is on the middle of the arrow."""
    t = np.array(PLACES)
    points = bezier(curve, t)
    slopes = bezier(np.diff(curve, axis=0), t)
    normals = np.stack([-slopes[:, 1], slopes[:, 0]], 1) / np.linalg.norm(slopes, axis=1, keepdims=True)
    for k, (point, normal) in enumerate(zip(points, normals, strict=True)):
        # Beside the arrow: half of what the box measures in the direction of the normal.
        beside = np.abs(normal) @ size / 2 + GAP
        for offset, penalty in ((0.0, 0.0), (beside, 1.5), (-beside, 1.5)):
            yield point + offset * normal, penalty + 0.3 * k


def _hits_state(centre: Points, size: Points, states: Points) -> bool:
    """Return whether a box comes too close to the circle of a state."""
    nearest = np.clip(states, centre - size / 2, centre + size / 2)
    return bool((np.linalg.norm(nearest - states, axis=1) < RADIUS + GAP).any())
