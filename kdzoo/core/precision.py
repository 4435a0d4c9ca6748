"""Which floating-point type a device computes losses in: the widest one that it has.

Losses are sums of many small numbers, and means over micro-batches or ranks are to agree. In float64 rounding does not
matter. Apple's GPUs do not have it; there the losses are computed in float32 by formulas that lose nothing to
cancellation, and their values are summed in float32.
"""

import torch
from torch import Tensor

DEVICES_WITHOUT_FLOAT64 = {"mps"}
"""Types of devices (``torch.device.type``) that cannot hold a float64 tensor; Metal has no such type."""

DEVICES_OF_THE_HOST = {"cpu"}
"""Types of devices whose values the program can look at without waiting for them."""


def widest_float(device: torch.device | str) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, or float32 where there is none.

    Example:
        >>> widest_float("cpu"), widest_float("mps")
        (torch.float64, torch.float32)
    """
    return torch.float32 if torch.device(device).type in DEVICES_WITHOUT_FLOAT64 else torch.float64


def widen(values: Tensor) -> Tensor:
    """Return floating-point values in the widest type of their device, without a copy where they are in it already.

    Example:
        >>> widen(torch.ones(2)).dtype
        torch.float64
    """
    return values.to(widest_float(values.device))


def host_may_read(values: Tensor) -> bool:
    """Return whether the program may look at values without waiting: they are in the host's memory and not traced.

    On an accelerator, ``bool(tensor)``, ``tensor.item()`` and indexing by a mask stop the host until the device has
    done everything that was asked of it. Code that takes a shorter path for some values asks here first.

    Example:
        >>> host_may_read(torch.ones(1)), host_may_read(torch.ones(1, device="meta"))
        (True, False)
    """
    return values.device.type in DEVICES_OF_THE_HOST and not torch.compiler.is_compiling()
