"""The geometry of drawings of automata."""

import math

import numpy as np
import pytest

from kdzoo.automata.graph_layout import MAX_SIDE, RADIUS, arrange, bezier, sample, unit_positions
from kdzoo.automata.labels import Edge, edge_labels
from kdzoo.automata.targets import embedded_reber, random_pnfa, tomita


def edge(source, target):
    return Edge(source, target, ((0, 1.0),), 1.0, "a 1")


def boxes_overlap(centres, sizes):
    """Return whether any two of some boxes overlap."""
    return any(
        (np.abs(centres[i] - centres[j]) < (sizes[i] + sizes[j]) / 2).all() for i in range(len(sizes)) for j in range(i)
    )


def test_a_quadratic_and_a_cubic_curve():
    line = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert bezier(line, np.array([0, 0.25, 1])).tolist() == [[0, 0], [0.5, 0], [2, 0]]
    cubic = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert bezier(cubic, np.array([0.5])).tolist() == [[0.5, 0.75]]


def test_the_mean_length_of_an_edge_is_one_and_paths_go_to_the_right():
    edges = [edge(0, 1), edge(1, 2), edge(2, 3)]
    positions = unit_positions(4, edges)
    assert np.mean([math.dist(positions[i], positions[i + 1]) for i in range(3)]) == pytest.approx(1)
    assert (np.diff(positions[:, 0]) > 0.9).all()


def test_parts_that_are_not_connected_stand_apart():
    positions = unit_positions(5, [edge(0, 1), edge(2, 3)])
    assert positions[[0, 1], 0].max() <= positions[[2, 3], 0].min() - 1
    assert positions[[2, 3], 0].max() <= positions[4, 0] - 1


def test_an_arrow_bows_around_a_state_in_its_way():
    # On a line of three states, the arrow from the first to the last one would run through the second.
    edges = [edge(0, 1), edge(1, 2)]
    layout = arrange(3, [*edges, edge(2, 2)], np.full((3, 2), 0.1))
    straight = layout.curves[0]
    assert np.linalg.norm(np.diff(straight, axis=0)[0] - np.diff(straight, axis=0)[1]) < 1e-9
    long = arrange(4, [edge(0, 1), edge(1, 2), edge(2, 3), edge(0, 3), edge(3, 0)], np.full((5, 2), 0.1))
    for curve, (source, target) in zip(long.curves, [(0, 1), (1, 2), (2, 3), (0, 3), (3, 0)], strict=True):
        for k in {0, 1, 2, 3} - {source, target}:
            assert np.linalg.norm(sample(curve) - long.states[k], axis=1).min() > RADIUS


def test_arrows_there_and_back_do_not_cover_each_other():
    layout = arrange(2, [edge(0, 1), edge(1, 0)], np.full((2, 2), 0.1))
    there, back = (bezier(curve, np.array([0.5]))[0] for curve in layout.curves)
    assert math.dist(there, back) > 0.1


AUTOMATA = {
    "reber": embedded_reber(),
    **{f"tomita {i}": tomita(i) for i in range(1, 8)},
    **{f"random {k}": random_pnfa(k, 4, seed=1) for k in (3, 5, 8, 12, 16, 20)},
}


@pytest.mark.parametrize("name", AUTOMATA)
@pytest.mark.parametrize("size", [(0.3, 0.1), (0.5, 0.5)], ids=["small labels", "large labels"])
def test_no_label_lies_on_another_one_or_on_a_state(name, size):
    pfa = AUTOMATA[name]
    edges = list(edge_labels(pfa, [str(i) for i in range(pfa.n_tokens)], 0.01))
    sizes = np.tile(size, (len(edges), 1))
    layout = arrange(pfa.states, edges, sizes)
    if layout is None:  # only large labels on many arrows may find no place
        assert size == (0.5, 0.5)
        assert len(edges) > 20
        return
    assert not boxes_overlap(layout.labels, sizes)
    assert not boxes_overlap(layout.states, np.full((pfa.states, 2), math.sqrt(2) * RADIUS))
    for centre in layout.labels:
        nearest = np.clip(layout.states, centre - np.array(size) / 2, centre + np.array(size) / 2)
        assert np.linalg.norm(nearest - layout.states, axis=1).min() > RADIUS
    everything = np.concatenate([layout.states, layout.labels, *map(sample, layout.curves)])
    assert (everything >= layout.low).all()
    assert (everything <= layout.high).all()


def test_what_does_not_fit_on_a_page_has_no_layout():
    n = 12
    edges = [edge(i, j) for i in range(n) for j in range(n)]
    assert arrange(n, edges, np.full((n * n, 2), 0.6)) is None
    path = [edge(i, i + 1) for i in range(40)]
    assert arrange(41, path, np.full((40, 2), 0.1)) is None  # longer than MAX_SIDE
    assert MAX_SIDE < 40
