"""Types in plain words, for messages to users: ``Sequence[int]`` is a list of integers."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from kdzoo.config.signatures import Opaque

# The words of each type: singular with an article, and plural.
_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "booleans"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
    None: ("null", "nulls"),
    type(None): ("null", "nulls"),
    Any: ("any value", "values"),
    list: ("a list", "lists"),
    tuple: ("a list", "lists"),
    set: ("a list", "lists"),
    dict: ("a mapping", "mappings"),
}


def in_words(hint: Any) -> str:
    """Return the YAML values that fit a type, in words that follow "must be".

    Example:
        >>> in_words(typing.Sequence[int] | None), in_words(dict[str, float]), in_words(typing.Literal["min", "max"])
        ('a list of integers or null', 'a mapping of strings to numbers', "'min' or 'max'")
    """
    return _phrase(hint, plural=False)


def _phrase(hint: Any, *, plural: bool) -> str:
    """Return the words of a type, singular or plural."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _alternatives(_without_implied(arguments), plural=plural)
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if hint in _WORDS:
        return _WORDS[hint][plural]
    container = origin or hint
    if container is collections.abc.Callable:
        return ("a function", "functions")[plural]
    if not inspect.isclass(container):
        return str(hint)
    if issubclass(container, Mapping):
        content = (
            f" of {_phrase(arguments[0], plural=True)} to {_phrase(arguments[1], plural=True)}" if arguments else ""
        )
        return _WORDS[dict][plural] + content
    if container is tuple and arguments and Ellipsis not in arguments:
        several = list(dict.fromkeys(_phrase(member, plural=True) for member in arguments))
        items = (
            several[0]
            if len(several) == 1
            else "values: " + ", ".join(_phrase(item, plural=False) for item in arguments)
        )
        return f"{_WORDS[list][plural]} of {len(arguments)} {items}"
    if issubclass(container, Collection) or container is Iterable:
        return _WORDS[list][plural] + (f" of {_phrase(arguments[0], plural=True)}" if arguments else "")
    return (f"a {container.__name__}", f"objects of the class {container.__name__}")[plural]


def _without_implied(members: Iterable[Any]) -> list[Any]:
    """Return the members of a union without those that say nothing more.

    These are classes that no plain value can be an instance of, integers beside numbers, and paths beside strings.
    """
    members = [member for member in members if member is not Opaque]
    implied = {int: float, Path: str}
    return [member for member in members if implied.get(member) not in members]


def _alternatives(members: Iterable[Any], *, plural: bool) -> str:
    # "A list of integers or null" would be ambiguous, so that null comes last, behind what stands outside the list.
    words = [_phrase(member, plural=plural) for member in sorted(members, key=lambda member: member is type(None))]
    return " or ".join(dict.fromkeys(words))
