"""From a user's array to a checked tensor, and from bytes of pixels to numbers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.data.loading.class_labels import hide_missing
from kdzoo.data.loading.split_data import DataSplit
from kdzoo.errors import DataError

UNSCALED: Scaling = {"mean": (0.0,), "std": (1.0,)}
"""The scaling of pixels that are only divided by 255, for images with any number of channels."""


class TensorSplit(DataSplit):
    """A split that is held in memory as two tensors.

    Args:
        inputs: float32 ``[n, ...]``.
        targets: int64 ``[n]``; ``IGNORE`` where the label is missing.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, as ``torch.utils.data.TensorDataset(*split.tensors)`` takes them."""
        return self.inputs, self.targets

    def select(self, rows: Tensor) -> "TensorSplit":
        """Return the samples at ``rows`` (int64 ``[m]``), in this order."""
        return TensorSplit(self.inputs[rows], self.targets[rows])

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` ``[b, ...]`` and ``target`` ``[b]``."""
        # Measured on a batch of images: index_select is four times as fast as inputs[index].
        return {"input": self.inputs.index_select(0, index), "target": self.targets.index_select(0, index)}

    def unlabelled(self) -> Tensor:
        """Return whether the label of each sample is missing, bool ``[n]``."""
        return self.targets == IGNORE

    def content(self) -> Iterable[Tensor]:
        """Return the inputs; labels are not part of them."""
        return [self.inputs]


def checked_split(arrays: Any, name: str, ignore_index: int = IGNORE) -> TensorSplit:
    """Return a pair of arrays as a split.

    Args:
        arrays: ``(inputs [n, ...], labels [n])``, NumPy arrays or tensors, n >= 1; numbers are cast, not scaled.
        name: "train" or "test", for messages.
        ignore_index: The label that stands for a missing one.

    Raises:
        DataError: If it is not such a pair, is empty or of unequal length, the inputs are not finite or the labels
            are not integers.
    """
    if not isinstance(arrays, Sequence) or len(arrays) != 2:
        kind = f"{type(arrays).__name__} of {len(arrays)}" if isinstance(arrays, Sequence) else type(arrays).__name__
        raise DataError(f"{name} must be a pair (inputs, labels), got {kind}")
    # Float labels are rejected even if they are whole numbers: they may be the targets of a regression.
    inputs, labels = _tensor(arrays[0], f"{name} inputs"), _tensor(arrays[1], f"{name} labels")
    if labels.ndim != 1 or labels.is_floating_point():
        raise DataError(f"{name} labels must be integers [n], got {labels.dtype} {list(labels.shape)}")
    if inputs.ndim < 2:
        raise DataError(f"{name} inputs must be [n, ...] with n samples, got {list(inputs.shape)}")
    if len(inputs) != len(labels):
        raise DataError(f"{name} has {len(inputs)} inputs but {len(labels)} labels; allowed: equal numbers")
    if not len(inputs):
        raise DataError(f"the {name} split is empty; allowed: at least 1 sample")
    inputs = inputs.to(torch.float32)
    check_finite(inputs, name)
    return TensorSplit(inputs, hide_missing(labels.to(torch.int64), ignore_index))


def check_finite(inputs: Tensor, name: str) -> None:
    """Check that no sample of float ``[n, ...]`` has a NaN or an infinity.

    Raises:
        DataError: If one does; the message names the first.
    """
    # One NaN in the inputs makes every weight NaN after one step, far from its cause.
    invalid = (~inputs.isfinite().flatten(1).all(1)).nonzero()
    if len(invalid):
        raise DataError(f"{name} input at index {int(invalid[0])} holds NaN or infinity; allowed: finite numbers")


def pixels_to_floats(
    pixels: npt.NDArray[np.uint8], mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
) -> npt.NDArray[np.float32]:
    """Return ``(pixels / 255 - mean) / std`` for uint8 ``[n, c, h, w]``, with one mean and std for each channel.

    Example:
        >>> pixels_to_floats(np.full((1, 1, 1, 1), 255, np.uint8)).item()
        1.0
    """
    floats = pixels.astype(np.float32)
    # In place: a data set of images is then in memory once as float32, not three times.
    floats /= np.float32(255)
    floats -= np.asarray(mean, np.float32)[:, None, None]
    floats /= np.asarray(std, np.float32)[:, None, None]
    return floats


def _tensor(array: Any, name: str) -> Tensor:
    # torch warns about read-only arrays, such as those of a memory map, because it would share their memory.
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    try:
        tensor = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{name} must be an array of numbers, got {kind}") from error
    if tensor.is_complex():
        raise DataError(f"{name} must be an array of real numbers, got {tensor.dtype}")
    return tensor
