"""A hash of the training inputs: teacher outputs that were computed from them are valid while it is the same."""

import hashlib
from collections.abc import Iterable

from torch import Tensor

# Part of every hash. Raise the number whenever the way of hashing changes, so that cached outputs are not mistaken for
# outputs of other inputs.
VERSION = "kdzoo-inputs-1"


def hash_inputs(blocks: Iterable[Tensor]) -> str:
    """Return the SHA-256 (hex) of samples in order, their dtype, shape and number.

    Args:
        blocks: CPU tensors ``[b, ...]`` of one dtype and sample shape. Where one block ends and the next begins has
            no effect.

    Example:
        >>> import torch
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> hash_inputs([x]) == hash_inputs([x[:1], x[1:]]), hash_inputs([x]) == hash_inputs([x.T])
        (True, False)
    """
    digest = hashlib.sha256(VERSION.encode())
    kinds, count = set(), 0
    # Bytes alone are ambiguous: float32 [3, 2] and float32 [2, 3] of the same numbers have the same ones. The kinds and
    # the count come last, because a generator of blocks knows them only at its end.
    for block in blocks:
        digest.update(block.contiguous().numpy().reshape(-1).data)
        kinds.add(f"{block.dtype} {list(block.shape[1:])}")
        count += len(block)
    digest.update(f"{sorted(kinds)} {count}".encode())
    return digest.hexdigest()
