"""The sizes that data give to models of images."""

from typing import Any

from kdzoo.core.validation import integers
from kdzoo.errors import ConfigError


def image_shape(in_shape: Any, least: int, reason: str) -> tuple[int, int, int]:
    """Return (channels, height, width), both sides at least ``least`` pixels for the given reason."""
    channels, height, width = integers("in_shape (channels, height, width)", in_shape, length=3)
    if min(height, width) < least:
        raise ConfigError(f"in_shape must be at least {least} x {least} for {reason}, got {height} x {width}")
    return channels, height, width
