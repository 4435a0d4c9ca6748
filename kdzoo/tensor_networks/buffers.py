"""Memory that is used again: for the states of a chain, fresh pages from the system cost as much as the arithmetic.

A process keeps a few blocks for as long as it lives, none of them large.
"""

import weakref
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes: a line of the cache, and the widest vector of any processor."""
LARGEST = 64 * 2**20
"""Bytes of the largest block that is kept."""
KEPT = 4
"""Blocks that are kept at most, when nobody uses them."""

_free: dict[int, npt.NDArray[np.uint8]] = {}  # each step on it is one that no thread can interrupt


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor on the CPU of any content, aligned to ``ALIGNMENT``; its memory is kept when it is gone.

    Example:
        >>> first = empty(1000, 64, dtype=torch.float32)
        >>> address = first.data_ptr()
        >>> del first
        >>> empty(900, 64, dtype=torch.float32).data_ptr() == address
        True
    """
    size = prod(shape) * dtype.itemsize
    block = _taken(size)
    own = block[-block.ctypes.data % ALIGNMENT :][:size].view()  # an object of its own, as long-lived as the tensor
    weakref.finalize(own, _give_back, block).atexit = False
    return torch.from_numpy(own).view(dtype).view(shape)


def _taken(size: int) -> npt.NDArray[np.uint8]:
    """Return a block that is free and neither too small nor far too large, or a new one."""
    needed = size + ALIGNMENT
    for key, block in list(_free.items()):
        if needed <= len(block) <= 2 * needed and _free.pop(key, None) is not None:
            return block
    return np.empty(needed, np.uint8)


def _give_back(block: npt.NDArray[np.uint8]) -> None:
    if len(block) <= LARGEST:
        _free[id(block)] = block
        for oldest in list(_free)[:-KEPT]:
            _free.pop(oldest, None)
