"""The check that every argument of a distiller rejects values outside of its range, in a message that names it."""

import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kdzoo import config
from kdzoo.contracts.subject import Subject
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError

# Values that no argument of the type can accept: temperatures, weights and counts are all nonnegative and finite, and
# True is a number in Python, but hardly ever meant as one.
BAD_VALUES: dict[Any, Sequence[Any]] = {
    float: (math.nan, math.inf, -1.0, True, "much"),
    int: (-1, 1.5, math.nan, True, "many"),
    str: ("no_such_choice",),
}
# Arguments that the run provides, and the weights, whose names are those of the terms; they are tried separately.
NOT_TRIED = ("student", "teacher", "optimizer", "scheduler", "loss_weights")


def check_arguments(subject: Subject) -> None:
    """Numeric arguments, names of choices and loss weights out of range are rejected, with the argument's name."""
    models = [model for model in subject.models(subject.data()) if model is not None]
    settings = {
        key: value
        for key, value in subject.job.settings["distiller"].items()
        if key not in ("_target_", "_partial_", "_convert_")
    }
    terms = subject.method.info.terms
    term = next(iter(terms), "any")
    trials = [(name, value) for name, values in _bad_values(subject.method).items() for value in values]
    trials += [("micro_batch_size", 0), ("loss_weights", {term: -1.0}), ("loss_weights", {term: math.nan})]
    trials += [("loss_weights", {"no_such_term": 1.0})] if terms else []
    for name, value in trials:
        message = _rejection(subject.method, models, {**settings, name: value})
        assert message, f"{name}={value!r} is accepted"
        assert name in message, f"{name}={value!r} is rejected without naming it: {message}"


def _rejection(method: type[Distiller], models: Sequence[nn.Module], arguments: Mapping[str, Any]) -> str:
    """Return the message with which a method rejects its arguments, or an empty string if it accepts them."""
    try:
        method(*models, **arguments)
    except ConfigError as error:
        return str(error)
    return ""


def _bad_values(method: type[Distiller]) -> dict[str, Sequence[Any]]:
    """Return bad values for each argument of a distiller, by its type."""
    by_name: dict[str, Sequence[Any]] = {}
    for name in config.parameters(method):
        for owner in method.__mro__:
            constructor = vars(owner).get("__init__")
            if constructor is None or name in NOT_TRIED:
                continue
            hint = typing.get_type_hints(constructor).get(name)
            # ``float`` itself, or a union such as ``float | None``; a list of floats has other bad values.
            kinds = [member for member in (hint, *typing.get_args(hint)) if member in BAD_VALUES]
            if kinds and typing.get_origin(hint) in (None, typing.Union, type(int | None)):
                by_name[name] = BAD_VALUES[kinds[0]]
                break
    return by_name
