"""Every error of the package is of one family, and is of the built-in kind that callers expect."""

import pytest

from kdzoo import errors
from kdzoo.errors import did_you_mean, first_line, in_one_line

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
FAMILY = [kind for kind in CLASSES if not issubclass(kind, Warning)]


def test_every_error_is_of_one_family():
    assert {"CheckpointError", "ConfigError", "DataError", "NonFiniteLossError", "RunFolderError", "CacheError"} <= {
        kind.__name__ for kind in FAMILY
    }
    assert all(issubclass(kind, errors.KdzooError) for kind in FAMILY)


def test_the_only_warning_is_one_of_a_users_code():
    assert [kind for kind in CLASSES if issubclass(kind, Warning)] == [errors.KdzooWarning]
    assert issubclass(errors.KdzooWarning, UserWarning)


def test_wrong_values_are_value_errors():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.NonFiniteLossError, ArithmeticError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  two\nthree"), "two"),
        (AssertionError(), "AssertionError"),
        (KeyError(" "), "' '"),
    ],
)
def test_the_first_line_of_a_message(error, line):
    assert first_line(error) == line


def test_a_similar_name_is_suggested():
    assert did_you_mean("temprature", ["temperature", "seed"]) == "; did you mean 'temperature'?"
    assert did_you_mean("x", ["temperature", "seed"]) == ""


def test_a_library_explains_itself_in_one_short_line():
    assert in_one_line(ValueError("a\n  b\tc")) == "a b c"
    assert len(in_one_line(ValueError("x" * 500))) == 200
    assert in_one_line(ValueError()) == "ValueError"
