"""Counter-based random numbers: a draw is a hash of its key, so that no generator state has to be saved.

The hash is the finaliser of splitmix64, a bijection of 64-bit integers. A draw with the key (seed, epoch, index,
stream) is the same in any batch, in any worker process and after any restart.

References:
    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.errors import ConfigError

_MASK = (1 << 64) - 1  # keeps Python's unbounded integers to 64 bits, as NumPy's uint64 does
# The odd integer next to 2**64 / golden ratio, the increment of splitmix64. Adding it keeps a key of zeros from being
# a fixed point of the finaliser.
_GOLDEN = 0x9E3779B97F4A7C15
# uniform_ints uses 32 random bits: with more values than this, the smallest and largest chance would differ visibly.
MAX_HIGH = 1 << 31


def mix_seed(*values: int) -> int:
    """Return one 63-bit seed that depends on every value and on their order.

    Args:
        values: Any integers; negative and very large ones are taken modulo 2**64.

    Returns:
        An integer in [0, 2**63), valid as a seed of ``torch.Generator``.

    Example:
        >>> mix_seed(0, 1) == mix_seed(0, 1), mix_seed(0, 1) == mix_seed(1, 0), mix_seed(0) == mix_seed(0, 0)
        (True, False, False)
    """
    # The number of values comes first, so that (0,) and (0, 0) have different seeds.
    state = _scramble(len(values) + _GOLDEN)
    for value in values:
        state = _scramble(((state ^ (int(value) & _MASK)) + _GOLDEN) & _MASK)
    return state >> 1  # torch.Generator.manual_seed takes signed 64-bit integers


def uniform_ints(seed: int, epoch: int, index: npt.ArrayLike, stream: int, high: int) -> npt.NDArray[np.int64]:
    """Return one uniform integer in [0, high) for each index.

    Args:
        seed: Seed of the run.
        epoch: The epoch.
        index: Sample positions ``[b]``, >= 0; the draw of one does not depend on the others.
        stream: Number of the decision that the draw is for; different streams are independent.
        high: Number of equally likely values, in 1..2**31 (their chances differ by less than 2**-31).

    Returns:
        int64 ``[b]``.

    Raises:
        ConfigError: If ``high`` is out of range.

    Example:
        >>> bool(uniform_ints(0, 0, [7, 8], 0, 5)[1] == uniform_ints(0, 0, [8], 0, 5)[0])
        True
    """
    if not 1 <= high <= MAX_HIGH:
        raise ConfigError(f"high must be in 1..2**31, got {high}")
    counter = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    bits = _scramble((counter ^ np.uint64(mix_seed(seed, epoch, stream))) + np.uint64(_GOLDEN))
    # Multiply and keep the high half: a range reduction without division (Lemire 2019).
    return (((bits >> np.uint64(32)) * np.uint64(high)) >> np.uint64(32)).astype(np.int64)


def permutation(n: int, *key: int) -> Tensor:
    """Return a random order of 0..n-1 (int64 ``[n]``) that is a function of ``key`` alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(*key)))


def _scramble(z: Any) -> Any:
    """Apply the splitmix64 finaliser to a Python integer or to an array of uint64."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
