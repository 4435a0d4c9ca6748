"""From a user's array to a checked tensor, and from bytes of pixels to numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.data.loading.splits import Split
from kdzoo.errors import DataError


def checked_split(arrays: Any, name: str) -> Split:
    """Return a pair of arrays as a split.

    Args:
        arrays: (inputs [n, ...], labels [n]), NumPy arrays or tensors; n >= 1; numbers are cast, not scaled.
        name: "train" or "test", for messages.

    Raises:
        DataError: not such a pair, empty, of unequal length, not finite, or the labels are no integers.
    """
    if not isinstance(arrays, Sequence) or len(arrays) != 2:
        found = f"{type(arrays).__name__} of {len(arrays)}" if isinstance(arrays, Sequence) else type(arrays).__name__
        raise DataError(f"{name} must be a pair (inputs, labels), got {found}")
    inputs, labels = (_tensor(array, f"{name} {part}") for array, part in zip(arrays, _PARTS, strict=True))
    if labels.ndim != 1 or labels.is_floating_point():
        raise DataError(f"{name} labels must be integers [n], got {labels.dtype} {list(labels.shape)}")
    if inputs.ndim < 2:
        raise DataError(f"{name} inputs must be [n, ...] with n samples, got {list(inputs.shape)}")
    if len(inputs) != len(labels):
        raise DataError(f"{name} has {len(inputs)} inputs but {len(labels)} labels; allowed: equal numbers")
    if not len(inputs):
        raise DataError(f"{name} split is empty; allowed: at least 1 sample")
    inputs = inputs.to(torch.float32)
    check_finite(inputs, name)
    return Split(inputs, labels.to(torch.int64))


_PARTS = ("inputs", "labels")


def check_finite(inputs: Tensor, name: str) -> None:
    """Check that no sample of float [n, ...] holds NaN or infinity.

    Raises:
        DataError: one does; the first is named.
    """
    wrong = (~inputs.isfinite().flatten(1).all(1)).nonzero()
    if len(wrong):
        raise DataError(f"{name} input at index {int(wrong[0])} holds NaN or infinity; allowed: finite numbers")


Scaling = dict[str, tuple[float, ...]]
"""``mean`` and ``std`` of each channel, by which a pixel 0..255 becomes (pixel / 255 - mean) / std."""
UNSCALED: Scaling = {"mean": (0.0,), "std": (1.0,)}


def pixels_to_floats(
    pixels: npt.NDArray[np.uint8], mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
) -> npt.NDArray[np.float32]:
    """Return (pixels / 255 - mean) / std for uint8 [n, c, h, w], with one mean and std for each channel.

    Example:
        >>> pixels_to_floats(np.full((1, 1, 1, 1), 255, np.uint8)).item()
        1.0
    """
    floats = pixels.astype(np.float32)
    floats /= np.float32(255)
    floats -= np.asarray(mean, np.float32)[:, None, None]
    floats /= np.asarray(std, np.float32)[:, None, None]
    return floats


def _tensor(array: Any, name: str) -> Tensor:
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    try:
        tensor = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = getattr(array, "dtype", type(array).__name__)
        raise DataError(f"{name} must be an array of numbers, got {kind}") from error
    if tensor.is_complex():
        raise DataError(f"{name} must be an array of real numbers, got {tensor.dtype}")
    return tensor
