"""Validation of arguments: what each function accepts and returns, and the message for everything else."""

import math
import re

import numpy as np
import pytest

from kdzoo.core import validation
from kdzoo.errors import ConfigError

ACCEPTED = [
    (validation.integer, (1,), 1),
    (validation.integer, (np.int64(3),), 3),
    (validation.integer, (0, 0), 0),
    (validation.integer, (5, 1, 5), 5),
    (validation.integers, ([3, 4],), (3, 4)),
    (validation.positive, (1,), 1.0),
    (validation.positive, (1e-30,), 1e-30),
    (validation.number, (-2,), -2.0),
    (validation.number, (0.5, 0.0, 1.0), 0.5),
    (validation.probability, (0,), 0.0),
    (validation.flag, (False,), False),
    (validation.choice, ("b", ("a", "b")), "b"),
    (validation.interval, ([3, 3], validation.integer), (3, 3)),
]
REJECTED = [
    (validation.integer, (0,), "must be an integer >= 1, got 0"),
    (validation.integer, (True,), "must be an integer >= 1, got True"),
    (validation.integer, (1.0,), "must be an integer >= 1, got 1.0"),
    (validation.integer, (6, 1, 5), "must be an integer in 1..5, got 6"),
    (validation.integers, ([],), "must be a list of integers >= 1, got []"),
    (validation.integers, ("12",), "must be a list of integers >= 1, got '12'"),
    (validation.integers, ([1, 0],), "[1] must be an integer >= 1, got 0"),
    (validation.positive, (0,), "must be finite and > 0, got 0"),
    (validation.positive, (math.inf,), "must be finite and > 0, got inf"),
    (validation.positive, (math.nan,), "must be finite and > 0, got nan"),
    (validation.positive, ("1",), "must be finite and > 0, got '1'"),
    (validation.number, (math.nan,), "must be a finite number >= -inf, got nan"),
    (validation.number, (-1, 0.0), "must be a finite number >= 0, got -1"),
    (validation.number, (2, 0.0, 1.0), "must be a finite number in [0, 1], got 2"),
    (validation.probability, (1,), "must be in [0, 1), got 1"),
    (validation.probability, (math.nan,), "must be in [0, 1), got nan"),
    (validation.flag, (1,), "must be true or false, got 1"),
    (validation.choice, ("c", ("a", "b")), "must be one of a, b, got 'c'"),
    (validation.interval, (3, validation.integer), "must be [least, most], got 3"),
    (validation.interval, ([4, 3], validation.integer), "must be [least, most] with least <= most, got [4, 3]"),
    (validation.interval, ([0, 3], validation.integer), "[0] must be an integer >= 1, got 0"),
]


@pytest.mark.parametrize(("function", "arguments", "expected"), ACCEPTED)
def test_a_valid_value_is_returned_in_its_plain_type(function, arguments, expected):
    value = function("size", *arguments)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("function", "arguments", "message"), REJECTED)
def test_an_invalid_value_is_rejected_with_what_is_allowed(function, arguments, message):
    with pytest.raises(ConfigError, match=f"^size ?{re.escape(message)}$"):
        function("size", *arguments)


def test_a_list_of_fixed_length():
    assert validation.integers("size", [1, 2], length=2) == (1, 2)
    assert validation.integers("size", [], empty=True) == ()
    with pytest.raises(ConfigError, match=r"^size must be 2 integers >= 1, got \[1\]$"):
        validation.integers("size", [1], length=2)
