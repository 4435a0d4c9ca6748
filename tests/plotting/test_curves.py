"""Curves show the numbers that they were given."""

import pytest

from kdzoo import plotting


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_optimized_and_measured_terms_have_a_panel_each(figures, tmp_path):
    terms = {"soft": ([1, 2], [3.0, 0.5]), "hard": ([1, 2], [1.0, 0.25])}
    path = plotting.loss_curves(terms, {"entropy": ([2], [7.0])}, tmp_path / "new" / "a.png")
    assert path.stat().st_size > 1000
    optimized, measured = figures[0].axes
    assert lines(optimized) == {"soft": [[1, 3], [2, 0.5]], "hard": [[1, 1], [2, 0.25]]}
    assert lines(measured) == {"entropy": [[2, 7]]}
    assert (optimized.get_yscale(), measured.get_yscale()) == ("log", "linear")
    assert (optimized.get_ylabel(), measured.get_ylabel()) == ("loss term (mean)", "measured (mean)")


def test_terms_that_are_never_positive_have_a_linear_axis(figures, tmp_path):
    plotting.loss_curves({"elbo": ([1, 2], [-3.0, -2.0])}, {}, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize(("terms", "measured"), [({}, {"a": ([1], [2.0])}), ({}, {})])
def test_an_empty_panel_is_left_out(terms, measured, figures, tmp_path):
    path = plotting.loss_curves(terms, measured, tmp_path / "a.png")
    assert path.exists()
    (axes,) = figures[0].axes
    assert len(axes.get_lines()) == len(measured)


def test_a_merge_curve_marks_the_lowest_objective(figures, tmp_path):
    plotting.merge_curve([8, 4, 2, 1], [5.0, 3.0, 4.0, 9.0], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[8, 5], [4, 3], [2, 4], [1, 9]]
    assert axes.collections[0].get_offsets().tolist() == [[4, 3]]
    assert [text.get_text() for text in axes.texts] == ["4 states"]
    assert axes.get_xscale() == "log"


def test_an_objective_is_drawn_over_its_updates(figures, tmp_path):
    plotting.objective_curve((3.0, 1.0, 0.5), tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[0, 3], [1, 1], [2, 0.5]]
