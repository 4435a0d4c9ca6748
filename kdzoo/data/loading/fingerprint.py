"""A name for the training inputs: what was computed from them is valid as long as it stays the same."""

import hashlib
from collections.abc import Iterable

from torch import Tensor

VERSION = "kdzoo-inputs-1"


def hash_inputs(blocks: Iterable[Tensor]) -> str:
    """Return the SHA-256 (hex) over samples in order, their dtype, shape and number.

    Args:
        blocks: CPU tensors [b, ...] of one dtype and sample shape; where one ends makes no difference.

    Example:
        >>> import torch
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> hash_inputs([x]) == hash_inputs([x[:1], x[1:]]), hash_inputs([x]) == hash_inputs([x.T])
        (True, False)
    """
    digest = hashlib.sha256(VERSION.encode())
    kinds, count = set(), 0
    for block in blocks:
        digest.update(block.contiguous().numpy().reshape(-1).data)
        kinds.add(f"{block.dtype} {list(block.shape[1:])}")
        count += len(block)
    digest.update(f"{sorted(kinds)} {count}".encode())
    return digest.hexdigest()
