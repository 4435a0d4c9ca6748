"""The numbers of a report: statistics over seeds against SciPy, and the comparison with published results."""

import numpy as np
import pytest
from scipy import stats

from kdzoo.errors import ConfigError
from kdzoo.runs import statistics
from tests.reports.example import report

STUDENT, CONTROL, TEACHER = [0.9, 0.8, 0.85, 0.95], [0.7, 0.75, 0.8, 0.72], [0.95, 0.97, 0.96, 0.99]


# ---------------------------------------------------------------- statistics


def test_measurements_over_seeds():
    merged = statistics.over_seeds([{"a": {"x": value}, "parameters": 7, "none": None} for value in STUDENT])
    expected = {"mean": np.mean(STUDENT), "std": pytest.approx(stats.tstd(STUDENT)), "values": STUDENT}
    assert merged == {"a": {"x": expected}, "parameters": 7, "none": None}
    assert statistics.means(merged) == {"a": {"x": np.mean(STUDENT)}, "parameters": 7, "none": None}


def test_a_single_seed_is_unchanged():
    measured = {"a": 1, "parameters": 7}
    assert statistics.over_seeds([measured]) == statistics.means(measured) == measured


def test_the_comparison_is_students_paired_test():
    compared = statistics.comparison("accuracy", {"student": STUDENT, "control": CONTROL, "teacher": TEACHER})
    t, p = stats.ttest_1samp(np.subtract(STUDENT, CONTROL), 0.0)
    assert compared["t"] == pytest.approx(t)
    assert compared["p"] == pytest.approx(p)
    assert compared["difference"] == pytest.approx(np.mean(STUDENT) - np.mean(CONTROL))
    gap = np.mean(TEACHER) - np.mean(CONTROL)
    assert compared["gap_closed"] == pytest.approx((np.mean(STUDENT) - np.mean(CONTROL)) / gap)


@pytest.mark.parametrize(
    ("student", "control", "teacher", "lower_is_better", "gap_closed"),
    [
        ([0.9], [0.8], [1.0], False, 0.5),
        ([0.9], [0.8], [0.7], False, None),  # the teacher is worse than the control
        ([2.0], [3.0], [1.0], True, 0.5),
        ([2.0], [3.0], [4.0], True, None),
        ([0.9], [0.8], None, False, None),
        ([0.05], [0.1], [0.1001], False, None),  # a tiny gap, of which the student would close -50,000 %
        ([0.1], [0.1], [0.2], False, 0.0),
    ],
)
def test_the_share_of_the_gap_that_is_closed(student, control, teacher, lower_is_better, gap_closed):
    roles = {"student": student, "control": control, "teacher": teacher}
    compared = statistics.comparison("score", roles, lower_is_better=lower_is_better)
    assert compared["gap_closed"] == (None if gap_closed is None else pytest.approx(gap_closed))
    assert (compared["t"], compared["p"], compared["std"]) == (None, None, None)


@pytest.mark.parametrize(("teacher", "is_stated"), [([0.92, 0.86, 0.93], True), ([0.92, 0.79, 0.83], False)])
def test_a_gap_within_the_noise_of_the_seeds_is_not_closed(teacher, is_stated):
    roles = {"student": [0.84, 0.83, 0.86], "control": [0.8, 0.81, 0.82], "teacher": teacher}
    assert (statistics.comparison("score", roles)["gap_closed"] is not None) == is_stated


def test_without_a_control_there_is_no_comparison():
    assert statistics.comparison("accuracy", {"student": STUDENT, "control": None, "teacher": TEACHER}) is None


# ---------------------------------------------------------------- published results


def entry(**changes):
    return {
        "metric": "student.metrics.accuracy",
        "value": 0.92,
        "tolerance": 0.03,
        "better": "higher",
        "source": "table 1",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"tolerance": 0.01}, False),
        ({"value": 0.5}, True),  # much better than published
        ({"better": "lower", "value": 0.88, "tolerance": 0.01}, False),
        ({"better": "lower", "value": 0.99}, True),
    ],
)
def test_a_result_is_reached_within_its_tolerance_or_if_it_is_better(changes, reached):
    (row,) = statistics.compare_with_expected(report(), [entry(**changes)])
    assert (row["measured"], row["reached"]) == (0.9, reached)


def test_of_several_seeds_the_mean_is_compared():
    merged = {"student": {"metrics": {"accuracy": statistics.over_seeds([0.8, 1.0])}}}
    (row,) = statistics.compare_with_expected(merged, [entry()])
    assert row["measured"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "student.metrics.errors"}, r"expected\.metric 'student\.metrics\.errors' is not a number"),
        ({"metric": "distiller"}, "is not a number in the report"),
        ({"better": "more"}, "with better lower or higher"),
        ({"note": 1}, "expected needs"),
    ],
)
def test_a_wrong_entry_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        statistics.compare_with_expected(report(), [entry(**changes)])


def test_versions_name_what_the_numbers_depend_on():
    assert {"python", "kdzoo", "torch"} <= statistics.versions().keys()
