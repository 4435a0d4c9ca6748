"""Curves show the numbers that they were given."""

import math
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from kdzoo import plotting
from kdzoo.plotting import TrainingCurves, curves
from kdzoo.plotting.style import DPI, ROLE_STYLES


def lines(axes):
    """Return the points of each line, by the role whose colour it has."""
    roles = {style.colour: role for role, style in ROLE_STYLES.items()}
    return {roles[line.get_color()]: line.get_xydata().tolist() for line in axes.get_lines()}


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def test_teacher_student_and_control_share_the_panels_of_their_terms(figures, tmp_path):
    trainings = {
        "teacher": TrainingCurves({"hard": ([1, 11], [2.0, 0.1])}, {"hard": ([1], [0.5])}),
        "student": TrainingCurves(
            {"soft": ([1, 11], [3.0, 0.5]), "hard": ([1], [1.0])}, {"soft": ([1, 2], [2.0, 1.0])}
        ),
        "control": TrainingCurves({}, {"hard": ([1, 2], [0.9, 0.8])}),
    }
    path = plotting.loss_curves(trainings, tmp_path / "new" / "a.png")
    assert path == tmp_path / "new" / "a.png"
    assert path.stat().st_size > 1000
    drawn = panels(figures[0])
    assert drawn.keys() == {"hard, training", "hard, validation", "soft, training", "soft, validation"}
    assert lines(drawn["hard, training"]) == {"teacher": [[1, 2], [11, 0.1]], "student": [[1, 1]]}
    assert lines(drawn["hard, validation"]) == {"teacher": [[1, 0.5]], "control": [[1, 0.9], [2, 0.8]]}
    assert lines(drawn["soft, validation"]) == {"student": [[1, 2], [2, 1]]}
    assert [drawn[name].get_yscale() for name in ("hard, training", "hard, validation")] == ["log", "log"]
    assert drawn["soft, training"].get_yscale() == "linear"  # not even a factor of ten
    assert drawn["hard, training"].get_xlabel() == "step"
    assert drawn["hard, validation"].get_xlabel() == "epoch"
    assert drawn["hard, training"].get_ylabel() == "mean loss"
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["teacher", "student", "control"]
    styles = {line.get_linestyle() for line in figures[0].legends[0].get_lines()}
    assert len(styles) == 3


def test_a_single_point_is_drawn_as_a_marker(figures, tmp_path):
    plotting.loss_curves({"student": TrainingCurves({"soft": ([7], [0.25])})}, tmp_path / "a.png")
    (axes,) = figures[0].axes
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"
    (x, y), (low, high) = line.get_xydata()[0], axes.get_ylim()
    assert axes.get_xlim()[0] < x < axes.get_xlim()[1]
    assert low < y < high
    assert any(tick == 7 for tick in axes.get_xticks())


@pytest.mark.parametrize(
    "trainings",
    [
        {},
        {"student": TrainingCurves()},
        {"student": TrainingCurves({"soft": ([], [])}, {"soft": ([1], [math.nan])})},
    ],
    ids=["no training", "no term", "no finite point"],
)
def test_without_points_there_is_no_figure(trainings, tmp_path):
    assert plotting.loss_curves(trainings, tmp_path / "a.png") is None
    assert not (tmp_path / "a.png").exists()


def test_a_panel_without_points_is_left_out_and_infinite_values_are_not_drawn(figures, tmp_path):
    student = TrainingCurves({"kl": ([1], [math.inf]), "x": ([1, 2], [-1.0, 2.0])}, {"kl": ([1, 2], [math.inf, 3.0])})
    plotting.loss_curves({"student": student}, tmp_path / "a.png")
    drawn = panels(figures[0])
    assert drawn.keys() == {"kl, validation", "x, training"}
    assert lines(drawn["kl, validation"]) == {"student": [[2, 3]]}
    assert drawn["x, training"].get_yscale() == "linear"  # a logarithmic axis would hide the negative value


def test_measured_terms_come_last_on_a_linear_axis(figures, tmp_path):
    student = TrainingCurves({"accuracy": ([1, 2], [0.01, 0.9]), "real": ([1, 2], [9.0, 0.1])})
    plotting.loss_curves({"student": student}, tmp_path / "a.png", measured=["accuracy"])
    real, accuracy = figures[0].axes
    assert (real.get_title(), real.get_yscale()) == ("real, training", "log")
    assert (accuracy.get_yscale(), accuracy.get_ylabel()) == ("linear", "mean, only measured")


def test_long_training_curves_are_smoothed_and_the_caption_says_so(figures, tmp_path):
    steps = list(range(curves.SMOOTHED_FROM))
    values = np.random.default_rng(0).random(len(steps)).tolist()
    student = TrainingCurves({"soft": (steps, values)}, {"soft": (steps, values)})
    path = plotting.loss_curves({"student": student}, tmp_path / "a.png")
    training, validation = figures[0].axes
    raw, mean = training.get_lines()
    assert raw.get_ydata().tolist() == values
    assert mean.get_ydata()[50] == pytest.approx(np.mean(values[48:53]))  # 5 % of 100 values
    assert not mean.get_marker()
    (line,) = validation.get_lines()
    assert line.get_ydata().tolist() == values
    with Image.open(path) as image:
        assert "mean over a window of 5% of the values" in image.info["Description"]
    plotting.loss_curves({"student": TrainingCurves({"soft": (steps[:9], values[:9])})}, path)
    with Image.open(path) as image:
        assert "smoothed" not in image.info["Description"]


def test_the_numbers_of_many_steps_do_not_overlap(figures, tmp_path):
    steps = list(range(0, 20_000, 500))
    student = TrainingCurves({"soft": (steps, [1.0] * 40)}, {"soft": ([1, 2], [1.0, 1.0])})
    plotting.loss_curves({"student": student}, tmp_path / "a.png")
    (figure,) = figures
    figure.set_dpi(DPI)  # matplotlib goes back to its own after saving, but keeps the sizes of texts
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


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
