"""Validation of the image sizes that models receive from the data."""

from typing import Any

from kdzoo.core.validation import integers
from kdzoo.errors import ConfigError


def image_shape(in_shape: Any, least: int, reason: str) -> tuple[int, int, int]:
    """Return channels, height and width of an image after a check of its size.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image.
        least: Minimum number of pixels of each side.
        reason: What needs this size, for the message.

    Raises:
        ConfigError: If the shape is not three integers >= 1, or a side is too short.

    Example:
        >>> image_shape([1, 28, 28], 8, "two halvings")
        (1, 28, 28)
    """
    channels, height, width = integers("in_shape (channels, height, width)", in_shape, length=3)
    if min(height, width) < least:
        raise ConfigError(f"in_shape must be at least {least} x {least} for {reason}, got {height} x {width}")
    return channels, height, width
