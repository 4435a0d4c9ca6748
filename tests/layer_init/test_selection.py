"""The selection of layers: the published lists, properties of every selection, and every refusal."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.layer_init import select_layers

some = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("deep", "shallow", "published"),
    [(12, 6, (0, 2, 4, 7, 9, 11)), (6, 3, (0, 2, 5)), (12, 3, (0, 6, 11))],
    ids=["half-of-twelve", "half-of-six", "quarter-of-twelve"],
)
def test_the_published_lists(deep, shallow, published):
    assert select_layers("every_other", deep, shallow) == published


@given(deep=st.integers(1, 40), data=st.data())
@some
def test_every_other_is_even_with_both_ends(deep, data):
    shallow = data.draw(st.integers(1, deep))
    chosen = select_layers("every_other", deep, shallow)
    gaps = [after - before for before, after in pairwise(chosen)]
    assert len(chosen) == shallow
    assert chosen[0] == 0
    assert all(gap >= 1 for gap in gaps)
    assert not gaps or (max(gaps) - min(gaps) <= 2 and chosen[-1] == deep - 1)
    ideal = [i * (deep - 1) / max(shallow - 1, 1) for i in range(shallow)]
    assert all(abs(one - other) <= 0.5 + 1e-9 for one, other in zip(chosen, ideal, strict=True))


def test_first_last_and_listed():
    assert select_layers("first", 6, 2) == (0, 1)
    assert select_layers("last", 6, 2) == (4, 5)
    assert select_layers([1, 4], 6) == (1, 4)
    assert select_layers([1, 4], 6, 2) == (1, 4)


@pytest.mark.parametrize(("deep", "half"), [(1, 1), (2, 1), (5, 2), (12, 6)], ids=["one", "two", "five", "twelve"])
def test_the_default_depth_is_half(deep, half):
    assert len(select_layers("every_other", deep)) == half


@pytest.mark.parametrize(
    ("which", "deep", "shallow", "line"),
    [
        ("auto", 6, 3, r"layers must be one of every_other, first, last or a list of numbers, got 'auto'"),
        ([], 6, None, r"layers must be one of every_other, first, last or a list of numbers, got \[\]"),
        ([0, 6], 6, None, r"layers\[1\] must be an integer in 0\.\.5, got 6"),
        ([-1, 2], 6, None, r"layers\[0\] must be an integer in 0\.\.5, got -1"),
        ([0, True], 6, None, r"layers\[1\] must be an integer in 0\.\.5, got True"),
        ([2, 1], 6, None, r"layers must be strictly increasing, got \[2, 1\]"),
        ([1, 1], 6, None, r"layers must be strictly increasing, got \[1, 1\]"),
        ([0, 1], 6, 3, r"layers must be 3 numbers, one for each layer of the student, got \[0, 1\]"),
        ("first", 6, 7, r"n_student must be an integer in 1\.\.6, got 7"),
        ("first", 6, 0, r"n_student must be an integer in 1\.\.6, got 0"),
        ("first", 0, None, r"n_teacher must be an integer >= 1, got 0"),
    ],
    ids=[
        *("unknown-name", "empty-list", "beyond-the-last", "negative", "bool", "decreasing", "twice"),
        *("other-length", "too-deep", "no-layers", "no-teacher"),
    ],
)
def test_invalid_selections_are_refused(which, deep, shallow, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        select_layers(which, deep, shallow)
