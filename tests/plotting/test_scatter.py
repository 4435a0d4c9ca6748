"""Scatter plots show every finite pair of numbers."""

import numpy as np
import pytest

from kdzoo import plotting


def test_impossible_sequences_are_counted_and_not_drawn(figures, tmp_path):
    x = np.array([-1.0, -2.0, -np.inf, -4.0])
    y = {"student": np.array([-1.5, -np.inf, -3.0, -4.5]), "control": np.array([-1.0, -2.0, -np.inf, -5.0])}
    plotting.log_prob_scatter(x, y, tmp_path / "a.png", reference="truth")
    (axes,) = figures[0].axes
    student, control = axes.collections
    assert student.get_offsets().tolist() == [[-1, -1.5], [-4, -4.5]]
    assert control.get_offsets().tolist() == [[-1, -1], [-2, -2], [-4, -5]]
    assert [student.get_label(), control.get_label()] == ["student (2 impossible)", "control (1 impossible)"]
    assert axes.get_xlabel() == "log-probability, truth (nats)"


def test_similarities_are_drawn_with_the_line_of_equality(figures, tmp_path):
    x, y = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.4, 0.9])
    plotting.similarity_scatter(x, {"student": y}, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.collections[0].get_offsets().tolist() == [[0, 0.1], [0.5, 0.4], [1, 0.9]]
    assert axes.collections[0].get_label() == "student"
    (line,) = axes.get_lines()
    assert line.get_xdata() == pytest.approx(line.get_ydata())


def test_clusters_have_their_own_markers_and_colours_and_are_counted(figures, tmp_path):
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    plotting.cluster_scatter(points, np.array([3, 7, 23, 3]), tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert figures[0].get_suptitle() == "Hidden states in 3 clusters"
    assert [group.get_offsets().tolist() for group in axes.collections] == [[[0, 1], [6, 7]], [[2, 3]], [[4, 5]]]
    assert len({group.get_paths()[0].vertices.tobytes() for group in axes.collections}) == 3
    assert len({tuple(group.get_facecolor()[0]) for group in axes.collections}) == 3


def test_classes_are_drawn_in_every_panel_and_once_in_the_legend(figures, tmp_path):
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    labels = np.array([1, 0, -100, 1])
    panels = {"teacher": points, "control": 10 * points}
    plotting.class_scatter(panels, labels, tmp_path / "a.png", title="Codes", caption="Codes.")
    first, second = figures[0].axes
    assert [group.get_offsets().tolist() for group in first.collections] == [[[2, 3]], [[0, 1], [6, 7]]]
    assert [group.get_offsets().tolist() for group in second.collections] == [[[20, 30]], [[0, 10], [60, 70]]]
    assert [axes.get_title() for axes in (first, second)] == ["teacher", "control"]
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]
