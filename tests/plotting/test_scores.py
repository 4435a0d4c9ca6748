"""Bars of scores."""

import math

from matplotlib.colors import to_rgba

from kdzoo import plotting
from kdzoo.plotting import ROLE_COLOURS


def test_the_best_score_is_on_top_and_the_chosen_one_has_another_colour(figures, tmp_path):
    scores = {"last": 0.5, "first": 2.0, "even": 1.0, "broken": math.nan, "worse": -math.inf}
    plotting.score_bars(scores, "even", tmp_path / "a.png", xlabel="score", ylabel="layers")
    (axes,) = figures[0].axes
    (bars,) = axes.containers
    assert [bar.get_width() for bar in bars] == [0.5, 1.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["last", "even", "first"]
    assert [bar.get_facecolor() == to_rgba(ROLE_COLOURS["student"]) for bar in bars] == [False, True, False]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("score", "layers")
    assert figures[0].get_suptitle() == "Score of each choice of layers"
    low, high = axes.get_ylim()
    assert low < high  # upwards
