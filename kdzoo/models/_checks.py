"""Checks that the constructors share; each returns the value in its plain Python type."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from kdzoo.errors import ConfigError


def integer(name: str, value: Any, least: int = 1) -> int:
    """The value as an int of at least `least`; a bool is not a number here."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def integers(name: str, values: Any, *, length: int | None = None, empty: bool = False) -> tuple[int, ...]:
    """The values as a tuple of ints >= 1, of the given length, or of any (empty only where allowed)."""
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or (length is not None and len(values) != length) or not (values or empty):
        wanted = f"{length} integers" if length is not None else "a list of integers"
        raise ConfigError(f"{name} must be {wanted} >= 1, got {values!r}")
    return tuple(integer(f"{name}[{i}]", value) for i, value in enumerate(values))


def probability(name: str, value: Any) -> float:
    """The value as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{name} must be in [0, 1), got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """The value, which must be a bool."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """The value, which must be one of the allowed names."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return str(value)


def image_shape(in_shape: Any, least: int, reason: str) -> tuple[int, int, int]:
    """The shape as (channels, height, width), both sides at least `least` pixels for the given reason."""
    channels, height, width = integers("in_shape (channels, height, width)", in_shape, length=3)
    if min(height, width) < least:
        raise ConfigError(f"in_shape must be at least {least} x {least} for {reason}, got {height} x {width}")
    return channels, height, width
