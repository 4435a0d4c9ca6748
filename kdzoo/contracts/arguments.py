"""The check that every numeric argument refuses what it cannot be."""

import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kdzoo import config
from kdzoo.contracts.subject import Subject
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError

BAD_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -1.0, True, "much")


BAD_COUNTS: tuple[Any, ...] = (-1, 1.5, math.nan, True, "many")


FILLED = ("student", "teacher", "optimizer", "scheduler", "loss_weights")


def check_arguments(subject: Subject) -> None:
    """Numeric arguments, names of choices and loss weights out of range are refused, with the argument's name."""
    data = subject.data()
    models = [model for model in subject.models(data) if model is not None]
    given = {
        key: value
        for key, value in subject.job.settings["distiller"].items()
        if key not in ("_target_", "_partial_", "_convert_")
    }
    term = next(iter(subject.method.info.terms), "any")
    wrong = [(name, value) for name, kinds in _numbers(subject.method).items() for value in kinds]
    wrong += [("micro_batch_size", 0), ("loss_weights", {term: -1.0}), ("loss_weights", {term: math.nan})]
    wrong += [("loss_weights", {"no_such_term": 1.0})] if subject.method.info.terms else []
    for name, value in wrong:
        refusal = _refusal(subject.method, models, {**given, name: value})
        assert refusal, f"{name}={value!r} is accepted"
        assert name in refusal, f"{name}={value!r} is refused without naming it: {refusal}"


def _refusal(method: type[Distiller], models: Sequence[nn.Module], arguments: Mapping[str, Any]) -> str:
    """Return the line with which a method refuses its arguments, or nothing if it takes them."""
    try:
        method(*models, **arguments)
    except ConfigError as error:
        return str(error)
    return ""


def _numbers(method: type[Distiller]) -> dict[str, Sequence[Any]]:
    """Return bad values for each argument of a distiller, by its type."""
    table: dict[Any, Sequence[Any]] = {float: BAD_NUMBERS, int: BAD_COUNTS, str: ("no_such_choice",)}
    found = {}
    for name in config.parameters(method):
        for owner in method.__mro__:
            own = vars(owner).get("__init__")
            hint = typing.get_type_hints(own).get(name) if own is not None and name not in FILLED else None
            kinds = [kind for kind in (hint, *typing.get_args(hint)) if kind in table]
            if kinds and typing.get_origin(hint) in (None, typing.Union, type(int | None)):
                found[name] = table[kinds[0]]
                break
    return found
