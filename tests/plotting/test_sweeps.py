"""Scores over settings: points, a heat map or parallel coordinates, depending on what was varied."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo import plotting
from kdzoo.plotting.sweeps import ticks

NAN = math.nan


def test_numbers_are_drawn_in_order_and_joined(figures, tmp_path):
    varied = [{"t": 4.0}, {"t": 1.0}, {"t": 100.0}]
    plotting.score_over_settings(varied, [0.8, 0.6, 0.7], [0.1, NAN, 0.2], "accuracy", tmp_path / "a.png")
    (axes,) = figures[0].axes
    line = axes.lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1.0, 4.0, 100.0], [0.6, 0.8, 0.7])
    assert (line.get_linestyle(), axes.get_xscale()) == ("-", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("t", "accuracy")
    assert figures[0].get_suptitle() == "accuracy over t"


def test_names_are_not_joined_and_have_no_scale(figures, tmp_path):
    plotting.score_over_settings(
        [{"student": "b"}, {"student": None}], [1.0, 2.0], [NAN, NAN], "errors", tmp_path / "a.png"
    )
    (axes,) = figures[0].axes
    assert axes.lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "None"]


def test_a_grid_of_two_settings_is_a_heat_map_with_its_numbers(figures, tmp_path):
    grid = list(itertools.product([[64], [16]], (1, 4)))
    varied = [{"hidden": hidden, "t": t} for hidden, t in grid]
    plotting.score_over_settings(varied, [0.1, 0.2, 0.3, 0.4], [NAN] * 4, "accuracy", tmp_path / "a.png")
    axes = figures[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.3, 0.4], [0.1, 0.2]])
    assert [text.get_text() for text in axes.texts] == ["0.3", "0.4", "0.1", "0.2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["[16]", "[64]"]


@pytest.mark.parametrize(
    "varied",
    [
        [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}],  # not the whole grid
        [{"a": 1, "b": 1, "c": x} for x in ("u", "v", "w")],
    ],
)
def test_other_runs_are_lines_between_their_settings_and_the_score(varied, figures, tmp_path):
    plotting.score_over_settings(varied, [0.5, 0.7, 0.9], [NAN] * 3, "accuracy", tmp_path / "a.png")
    (axes,) = figures[0].axes
    n = len(varied[0])
    runs = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == n + 1]
    assert [line[-1] for line in runs] == pytest.approx([0.0, 0.5, 1.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == [*varied[0], "accuracy"]
    assert {"0.5", "0.9"} <= {text.get_text() for text in axes.texts}


def test_equal_scores_are_in_the_middle(figures, tmp_path):
    varied = [{"a": i, "b": -i, "c": 0} for i in range(3)]
    plotting.score_over_settings(varied, [0.5] * 3, [NAN] * 3, "accuracy", tmp_path / "a.png")
    assert {line.get_ydata()[-1] for line in figures[0].axes[0].lines if len(line.get_xdata()) == 4} == {0.5}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.integers(-3, 3), st.sampled_from(["a", "b"]), st.none(), st.lists(st.integers(0, 3))), min_size=1
    )
)
def test_an_axis_has_every_value_once(values):
    found = ticks(values)
    assert all(value in found for value in values)
    assert all(found[i] not in found[:i] for i in range(len(found)))
