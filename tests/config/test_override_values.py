"""A value that is written as an override is read by Hydra as the same value."""

import inspect

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from kdzoo.config.override_values import as_override

VALUES = [None, True, 3, 0.5, "adam", "two words", "a,b", "", [1, None, "x y"], {"soft": 0.9, "hard": [False]}, []]


def plain(value):
    """Return a value without the marks of quotes that Hydra's parser keeps."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_hydra_reads_what_was_written(value):
    override = OverridesParser.create().parse_override(f"key={as_override(value)}")
    assert plain(override.value()) == value


def test_a_missing_value_is_hydras_sign_for_one():
    assert as_override(inspect.Parameter.empty) == "???"
