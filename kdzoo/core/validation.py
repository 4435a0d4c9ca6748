"""Validation of arguments: each function returns the value in its plain type, or raises a ConfigError of one line.

The message names the argument, what is allowed and the value. A bool is never a number here, although it is one to
Python, because ``temperature=true`` on a command line is a mistake.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from kdzoo.errors import ConfigError


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return the value as an int in least..most; without ``most`` there is no upper bound.

    Example:
        >>> integer("batch_size", 0)
        Traceback (most recent call last):
            ...
        kdzoo.errors.ConfigError: batch_size must be an integer >= 1, got 0
    """
    # Integral also covers the integers of NumPy.
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        allowed = f">= {least}" if most is None else f"in {least}..{most}"
        raise ConfigError(f"{name} must be an integer {allowed}, got {value!r}")
    return int(value)


def integers(name: str, values: Any, *, length: int | None = None, empty: bool = False) -> tuple[int, ...]:
    """Return the values as a tuple of ints >= 1, of the given length, or of any (empty only where allowed)."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list or (length is not None and len(values) != length) or not (values or empty):
        allowed = f"{length} integers" if length is not None else "a list of integers"
        raise ConfigError(f"{name} must be {allowed} >= 1, got {values!r}")
    return tuple(integer(f"{name}[{i}]", value) for i, value in enumerate(values))


def positive(name: str, value: Any) -> float:
    """Return the value as a finite float > 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be finite and > 0, got {value!r}")
    return float(value)


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return the value as a finite float in [least, most]."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        allowed = f">= {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
        raise ConfigError(f"{name} must be a finite number {allowed}, got {value!r}")
    return float(value)


def interval(name: str, values: Any, check: Callable[[str, Any], Any]) -> tuple[Any, Any]:
    """Return [least, most] as a tuple, after validating both with another of these functions.

    Example:
        >>> interval("lengths", [3, 25], integer)
        (3, 25)
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 2:
        raise ConfigError(f"{name} must be [least, most], got {values!r}")
    least, most = (check(f"{name}[{i}]", value) for i, value in enumerate(values))
    if least > most:
        raise ConfigError(f"{name} must be [least, most] with least <= most, got {list(values)}")
    return least, most


def probability(name: str, value: Any) -> float:
    """Return the value as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{name} must be in [0, 1), got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return the value, which must be a bool."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return the value, which must be one of the allowed names."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return str(value)
