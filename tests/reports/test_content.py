"""What a report says: rows in the order of readers, the best value of each, and one sentence as a verdict."""

import pytest

from kdzoo.reports import content
from tests.reports.example import model, report


def test_a_row_has_a_text_for_each_model():
    assert list(content.models(report())) == ["teacher", "student", "control", "cold_start"]
    assert [(row.label, row.cells) for row in content.rows(report())] == [
        ("parameters", ("5,000", "1,234", "1,234", "1,234")),
        ("accuracy ↑", ("0.95", "0.9", "0.7", "0.8")),
        ("cross entropy ↓", ("0.05", "0.1", "0.3", "0.2")),
        ("kl (teacher) ↓", ("", "0.25", "", "")),
        ("CPU ms per 1,000 ↓", ("1.5", "1.5", "1.5", "1.5")),
    ]


def test_the_best_value_is_that_of_a_model_other_than_the_teacher():
    rows = {row.name: row for row in content.rows(report())}
    assert (rows["accuracy"].best, rows["cross_entropy"].best) == (1, 1)
    assert rows["parameters"].best is None  # fewer are neither better nor worse by themselves
    assert rows["kl"].best is None  # a single model has it
    better_control = report(control=model(0.99), controls={"control": model(0.99)})
    assert {row.name: row.best for row in content.rows(better_control)}["accuracy"] == 2


def test_metrics_of_a_users_kind_have_no_direction():
    values = {"parameters": 1, "metrics": {"my_score": 2.0}, "cpu_ms_per_1000": 1.0}
    rows = content.rows(report(teacher=None, student=values, control=values, controls={}, fidelity={}))
    assert [(row.label, row.best, row.metric) for row in rows if row.name == "my_score"] == [("my score", None, None)]


def comparison(**changes):
    return {**report()["comparison"], **changes}


@pytest.mark.parametrize(
    ("compared", "seed", "sentence"),
    [
        (
            comparison(),
            0,
            "The student is better than its control in accuracy by 0.2 (one seed), "
            "and closes 80% of the gap to the teacher.",
        ),
        (
            comparison(std=0.01, t=28.9, p=9e-6, gap_closed=None),
            [0, 1, 2],
            "The student is better than its control in accuracy by 0.2 ± 0.01 (3 seeds, paired t = 28.9, p = 9e-06).",
        ),
        (
            comparison(difference=-0.5, gap_closed=-2.0),
            0,
            "The student is worse than its control in accuracy by 0.5 (one seed).",
        ),
        (
            comparison(metric="masked_loss", better="lower", difference=-0.5, gap_closed=None),
            0,
            "The student is better than its control in masked loss by 0.5 (one seed).",
        ),
        (
            comparison(difference=0.0, gap_closed=0.0, std=0.0, t=float("nan"), p=float("nan")),
            [0, 1],
            "The student is as good as its control in accuracy (2 seeds).",
        ),
        (None, 0, ""),
    ],
)
def test_the_verdict(compared, seed, sentence):
    assert content.verdict(report(comparison=compared, seed=seed)) == sentence


def test_warnings_follow_the_verdict():
    lines = content.sentences(report(warnings=["seed 0, student: its samples lack 2 of the classes of the data"]))
    assert "Warning: seed 0, student: its samples lack 2 of the classes of the data." in lines


def test_sentences_name_the_recommendation_published_results_and_the_time():
    entry = {"metric": "student.metrics.accuracy", "value": 0.92, "source": "table 1", "measured": 0.9}
    rows = [{**entry, "tolerance": 0.03, "reached": True}, {**entry, "tolerance": 0.01, "reached": False}]
    lines = content.sentences(report(expected=rows, recommendation="Use a larger student."))
    assert lines[1:] == [
        "Use a larger student.",
        "student.metrics.accuracy: 0.9, published 0.92 ± 0.03 (table 1): reproduced.",
        "student.metrics.accuracy: 0.9, published 0.92 ± 0.01 (table 1): not reproduced.",
        "Time: teacher 1.0 s, student 2.0 s.",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (3, "3"), (12345, "12,345"), (0.123456, "0.1235"), ({"mean": 0.5, "std": 0.0123}, "0.5 ± 0.012")],
)
def test_a_measurement_as_text(value, text):
    assert content.as_text(value) == text


@pytest.mark.parametrize(("seed", "text"), [(3, "seed 3"), ([3], "seed 3"), ([0, 1], "seeds 0, 1")])
def test_the_title(seed, text):
    assert content.title(report(seed=seed)) == f"logit_kd on digits, {text}"
