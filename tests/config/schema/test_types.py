"""The schema of a type accepts the YAML values that the check of a run accepts."""

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from kdzoo.config.schema.types import INTERPOLATION, NODE, VALUE, of_type
from kdzoo.config.signatures import Opaque


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, {"type": "string"}),
        (str | Path | None, {"type": ["string", "null"]}),
        (bool, {"anyOf": [{"type": "boolean"}, INTERPOLATION]}),
        (int | None, {"anyOf": [{"type": ["integer", "null"]}, INTERPOLATION]}),
        (Optional[float], {"anyOf": [{"type": ["number", "null"]}, INTERPOLATION]}),  # noqa: UP045
        (Literal["step", "epoch"] | None, {"anyOf": [{"type": "null"}, {"enum": ["step", "epoch"]}, INTERPOLATION]}),
        (Opaque | str, {"anyOf": [{"type": "string"}, NODE]}),
        (Any, VALUE),
        (Callable[..., Any] | None, VALUE),
        (Any | None, VALUE),
    ],
    ids=str,
)
def test_scalars_and_unknown_types(hint, expected):
    assert of_type(hint) == expected


@pytest.mark.parametrize(
    "hint", [Sequence[int], list[int], Iterable[int], typing.Sequence[int], set[int], tuple[int, ...]]
)
def test_lists(hint):
    numbers = {"type": "array", "items": {"anyOf": [{"type": "integer"}, INTERPOLATION]}}
    assert of_type(hint) == {"anyOf": [numbers, NODE, INTERPOLATION]}


def test_a_list_of_unknown_values():
    assert of_type(list)["anyOf"][0] == {"type": "array", "items": VALUE}


def test_a_tuple_has_a_length():
    pair = of_type(tuple[float, str])["anyOf"][0]
    assert (pair["minItems"], pair["maxItems"]) == (2, 2)
    assert pair["prefixItems"][1] == {"type": "string"}


@pytest.mark.parametrize("hint", [Mapping[str, str], dict[str, str], typing.Mapping[str, str]])
def test_mappings(hint):
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    assert of_type(hint | None) == {"anyOf": [{"type": "null"}, texts, NODE, INTERPOLATION]}
