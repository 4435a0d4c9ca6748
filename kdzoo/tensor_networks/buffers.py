"""Memory that is reused: for the states of a chain, fresh pages from the system cost as much as the arithmetic.

A process keeps a few blocks for as long as it lives, none of them large.
"""

import weakref
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes: a cache line, and the widest vector (AVX-512), which the C code loads aligned
# Bytes of the largest block that is kept. The states of 784 sites with bonds of 64 and 128 samples take 13 MB.
MAX_BLOCK_BYTES = 64 * 2**20
# Free blocks that are kept at most. A step needs two at a time: states and gradients of the cores.
MAX_FREE_BLOCKS = 4

# Each operation on it is a single one of a dict, which threads cannot interrupt, so that no lock is needed.
_free: dict[int, npt.NDArray[np.uint8]] = {}


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the CPU, aligned to ``ALIGNMENT``, whose memory is reused when it is gone.

    Example:
        >>> first = empty(1000, 64, dtype=torch.float32)
        >>> address = first.data_ptr()
        >>> del first
        >>> empty(900, 64, dtype=torch.float32).data_ptr() == address
        True
    """
    size = prod(shape) * dtype.itemsize
    block = _acquire(size)
    # A new array object: torch holds it as long as any view of the tensor lives, and its end returns the block.
    aligned = block[-block.ctypes.data % ALIGNMENT :][:size].view()
    weakref.finalize(aligned, _release, block).atexit = False
    return torch.from_numpy(aligned).view(dtype).view(shape)


def _acquire(size: int) -> npt.NDArray[np.uint8]:
    """Return a free block of at least the size and at most twice as much, or a new one."""
    needed = size + ALIGNMENT
    for key, block in list(_free.items()):
        if needed <= len(block) <= 2 * needed and _free.pop(key, None) is not None:
            return block
    return np.empty(needed, np.uint8)


def _release(block: npt.NDArray[np.uint8]) -> None:
    if len(block) <= MAX_BLOCK_BYTES:
        _free[id(block)] = block
        for oldest in list(_free)[:-MAX_FREE_BLOCKS]:
            _free.pop(oldest, None)
