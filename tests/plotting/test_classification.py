"""Calibration and recall: what stands at which place of the figure."""

import numpy as np
import pytest

from kdzoo import plotting
from kdzoo.plotting.style import DPI


def test_a_reliability_diagram_has_the_mean_confidence_and_the_accuracy_of_each_bin(figures, tmp_path):
    confidence = np.array([0.1, 0.3, 0.7, 0.9, 1.0])
    correct = np.array([False, True, True, True, False])
    plotting.reliability_diagram({"student": (confidence, correct)}, tmp_path / "a.png", bins=2)
    (axes,) = figures[0].axes
    diagonal, curve = axes.get_lines()
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    expected = [[0.2, 0.5], [(0.7 + 0.9 + 1) / 3, 2 / 3]]  # a confidence of 1 is in the last bin
    np.testing.assert_allclose(curve.get_xydata(), expected)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), expected)
    np.testing.assert_allclose(axes.collections[0].get_sizes(), [8 + 150 * 2 / 5, 8 + 150 * 3 / 5])


def test_empty_bins_have_no_point(figures, tmp_path):
    plotting.reliability_diagram({"a": (np.array([0.95]), np.array([True]))}, tmp_path / "a.png", bins=10)
    assert figures[0].axes[0].collections[0].get_offsets().tolist() == [[0.95, 1.0]]


def test_recalls_of_a_class_stand_side_by_side(figures, tmp_path):
    recall = {"teacher": np.array([1.0, 0.5, 0.25]), "student": np.array([0.0, 0.75, np.nan])}
    plotting.recall_by_class(recall, tmp_path / "a.png")
    (axes,) = figures[0].axes
    teacher, student = axes.containers
    assert [bar.get_height() for bar in teacher] == [1, 0.5, 0.25]
    assert [bar.get_height() for bar in student][:2] == [0, 0.75]
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in (teacher, student)]
    np.testing.assert_allclose(np.mean(centres, axis=0), [0, 1, 2], atol=1e-12)
    assert centres[1][0] - centres[0][0] == pytest.approx(0.4)
    assert {bar.get_facecolor() for bar in teacher}.isdisjoint({bar.get_facecolor() for bar in student})


def test_a_legend_of_many_models_is_on_the_page(figures, tmp_path):
    names = ["teacher", "student", "control", "mean", "kmeans", "herding", "a_long_name_of_a_model"]
    plotting.recall_by_class({name: np.full(10, 0.5) for name in names}, tmp_path / "a.png")
    (figure,) = figures
    figure.set_dpi(DPI)  # matplotlib goes back to its own after saving, but keeps the sizes of texts
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
