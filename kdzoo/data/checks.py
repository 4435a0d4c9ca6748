"""Small checks of arguments; each raises one line that names the argument, its value and what is allowed."""

from typing import Any

from kdzoo.errors import ConfigError


def require_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` if it is an integer in low..high (no upper end when ``high`` is None).

    Raises:
        ConfigError: it is not.

    Example:
        >>> require_int("batch_size", 32, 1)
        32
        >>> require_int("batch_size", 0, 1)
        Traceback (most recent call last):
            ...
        kdzoo.errors.ConfigError: batch_size=0 is not allowed; allowed: an integer >= 1
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        allowed = f">= {low}" if high is None else f"in {low}..{high}"
        raise ConfigError(f"{name}={value!r} is not allowed; allowed: an integer {allowed}")
    return int(value)


def require_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} is not allowed; allowed: true or false")
    return value
