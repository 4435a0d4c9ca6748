"""The division of rows into train, val and test."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.loading.shares import count_of, share, share_rows
from kdzoo.errors import ConfigError


@given(st.integers(3, 60), st.integers(0, 9) | st.floats(0, 0.45), st.integers(0, 9) | st.floats(0, 0.45))
@settings(max_examples=100, deadline=None)
def test_shares_are_disjoint_cover_all_and_have_their_sizes(n, val_size, test_size):
    def expected(size):
        return size if isinstance(size, int) else max(1, round(size * n)) if size else 0

    if expected(val_size) + expected(test_size) >= n:
        with pytest.raises(ConfigError, match=f"of {n}; allowed: at most {n - 1} together"):
            share_rows(n, val_size, test_size)
        return
    train, val, test = share_rows(n, val_size, test_size)
    assert sorted(torch.cat([train, val, test]).tolist()) == list(range(n))
    assert (len(val), len(test)) == (expected(val_size), expected(test_size))
    assert all(torch.equal(rows, rows.sort().values) for rows in (train, val, test))
    assert torch.equal(share_rows(n, 0, test_size)[2], test)


def test_the_division_of_rows_never_changes():
    assert [rows.tolist() for rows in share_rows(8, 2, 2)] == [[0, 1, 4, 6], [2, 7], [3, 5]]


@pytest.mark.parametrize(("size", "count"), [(0, 0), (0.0, 0), (7, 7), (0.25, 2), (0.001, 1), (0.99, 10)])
def test_a_size_is_a_fraction_or_a_count(size, count):
    assert share("val_size", size) == size
    assert count_of(size, 10) == count


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1.0, r"^val_size=1\.0 is not allowed; allowed: a fraction in \[0, 1\) or a count$"),
        (-0.1, r"^val_size=-0\.1 is not allowed"),
        (float("nan"), r"^val_size=nan is not allowed"),
        (-1, r"^val_size must be an integer >= 0, got -1$"),
        ("1", r"^val_size must be an integer >= 0, got '1'$"),
    ],
)
def test_sizes_out_of_range(size, message):
    with pytest.raises(ConfigError, match=message):
        share("val_size", size)
