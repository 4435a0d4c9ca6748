"""Types are said in words that a user of YAML files knows."""

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from torch import nn

from kdzoo.config.signatures import Opaque
from kdzoo.config.type_words import in_words

WORDS = [
    (int, "an integer"),
    (float, "a number"),
    (bool, "true or false"),
    (str, "a string"),
    (Path, "a path"),
    (None, "null"),
    (Any, "any value"),
    (int | None, "an integer or null"),
    (Optional[str], "a string or null"),  # noqa: UP045
    (None | int, "an integer or null"),
    (float | int, "a number"),
    (str | Path | None, "a string or null"),
    (float | Opaque, "a number"),
    (Literal["step", "epoch"] | None, "'step' or 'epoch' or null"),
    (Sequence[int], "a list of integers"),
    (typing.Sequence[int], "a list of integers"),
    (Iterable[float], "a list of numbers"),
    (list, "a list"),
    (list[str] | None, "a list of strings or null"),
    (tuple[int, ...], "a list of integers"),
    (tuple[float, float], "a list of 2 numbers"),
    (tuple[str, int | None], "a list of 2 values: a string, an integer or null"),
    (Sequence[Sequence[int]], "a list of lists of integers"),
    (list[bool], "a list of booleans"),
    (int | Sequence[int], "an integer or a list of integers"),
    (Mapping, "a mapping"),
    (dict[str, Any], "a mapping of strings to values"),
    (Mapping[str, float | int] | None, "a mapping of strings to numbers or null"),
    (list[dict[str, Any]], "a list of mappings of strings to values"),
    (Callable[..., Any], "a function"),
    (Callable, "a function"),
    (nn.Module, "a Module"),
    (list[nn.Module], "a list of objects of the class Module"),
]


@pytest.mark.parametrize(("hint", "words"), WORDS, ids=[words for _, words in WORDS])
def test_the_words_of_a_type(hint, words):
    assert in_words(hint) == words


def test_a_type_that_has_no_words_is_written_as_it_is():
    assert in_words(typing.TypeVar("T")) == "~T"
