"""Reports of progress reach the display that is set, in order, and have no effect without one."""

import pytest

from kdzoo.core.progress import shown_by, stage, track


class Recorder:
    """A display that writes down what it is told."""

    def __init__(self):
        self.calls = []

    def begin(self, name, total, unit):
        self.calls.append(("begin", name, total, unit))
        return lambda completed, note: self.calls.append(("advance", name, completed, note))

    def end(self):
        self.calls.append(("end",))


def test_a_stage_reports_to_the_display():
    display = Recorder()
    with shown_by(display), stage("merging", total=2, unit="states") as advance:
        advance(1, "loss 3")
    assert display.calls == [("begin", "merging", 2, "states"), ("advance", "merging", 1, "loss 3"), ("end",)]


def test_a_loop_is_a_stage_of_its_own():
    display = Recorder()
    with shown_by(display):
        assert [2 * item for item in track([5, 7], "doubling", unit="numbers")] == [10, 14]
    assert display.calls == [
        ("begin", "doubling", 2, "numbers"),
        ("advance", "doubling", 1, ""),
        ("advance", "doubling", 2, ""),
        ("end",),
    ]


def test_a_report_belongs_to_its_own_stage():
    display = Recorder()
    with shown_by(display), stage("outer") as outer, stage("inner"):
        outer(3, "")
    assert ("advance", "outer", 3, "") in display.calls


def test_a_loop_over_items_without_a_length_has_no_total():
    display = Recorder()
    with shown_by(display):
        list(track(iter([1]), "reading"))
    assert display.calls[0] == ("begin", "reading", None, "batches")


def test_a_stage_is_closed_by_an_error_and_without_a_display_nothing_happens():
    display = Recorder()
    with pytest.raises(ZeroDivisionError), shown_by(display), stage("dividing"):
        _ = 1 / 0
    assert display.calls[-1] == ("end",)
    with stage("dividing") as advance:
        advance(1, "")
    assert list(track("ab", "reading")) == ["a", "b"]
    assert len(display.calls) == 2
