"""Checks of arguments: each returns the value or raises one line that says what is allowed."""

import math

from kdzoo.errors import ConfigError


def positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number greater than 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be finite and > 0, got {value!r}")
    return float(value)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {list(allowed)}, got {value!r}")
    return value
