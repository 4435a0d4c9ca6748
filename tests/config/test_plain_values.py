"""Settings that come as data hold plain values only."""

import datetime

import pytest
import yaml

from kdzoo.config.plain_values import check_plain, interpolations
from kdzoo.errors import ConfigError

INTERPOLATIONS = [
    "${oc.env:HOME}",
    "a ${seed} b",
    r"\${oc.env:HOME}",
    r"\\\${oc.create:{_target_: os.system}}",
    "${${x}}",
    "${ oc.env : HOME }",
    "$${oc.env:HOME}",
    "${unclosed",
]


@pytest.mark.parametrize("text", INTERPOLATIONS)
@pytest.mark.parametrize("nest", [lambda x: x, lambda x: {"a": {"b": x}}, lambda x: [[x]], lambda x: [{"a": x}]])
def test_interpolations_are_refused_at_every_depth_and_not_repeated(text, nest):
    with pytest.raises(ConfigError, match=r"FILE: key.* has an interpolation") as caught:
        check_plain({"key": nest(text)}, "FILE")
    assert "HOME" not in str(caught.value)
    assert next(interpolations({"key": nest(text)})).startswith("key")


@pytest.mark.parametrize("key", ["${oc.env:HOME}", 3, None, True])
def test_keys_are_plain_strings(key):
    with pytest.raises(ConfigError, match="FILE: the keys below a must be plain strings"):
        check_plain({"a": {key: 1}}, "FILE")


@pytest.mark.parametrize("value", [datetime.date(2000, 1, 1), b"bytes", {1, 2}, (1, 2), object()])
def test_values_that_json_does_not_have_are_refused(value):
    with pytest.raises(ConfigError, match=rf"FILE: a\[0\] must be a plain value, got {type(value).__name__}"):
        check_plain({"a": [value]}, "FILE")


def test_plain_values_pass():
    value = {"a": [None, True, 1, 0.5, "$x {y} $ {z}", {"b": {}}]}
    check_plain(value, "FILE")
    assert list(interpolations(value)) == []


def test_a_few_lines_that_stand_for_billions_of_values_are_refused():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(ConfigError, match="FILE has more than 100000 values"):
        check_plain(yaml.safe_load("\n".join(lines)), "FILE")


def test_deep_nesting_is_refused():
    value = []
    for _ in range(200):
        value = [value]
    with pytest.raises(ConfigError, match="or 50 levels"):
        check_plain({"a": value}, "FILE")
