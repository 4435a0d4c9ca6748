"""Other devices, simulated on the CPU: one without float64, and one whose values the host must not wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdzoo.core import precision

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select"}


class _NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{func} makes a float64 tensor, which this device does not have")
        return result


class _NoReads(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = name.startswith("aten::index") and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:])
        )
        if name in READS or by_mask:
            raise RuntimeError(f"{func} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def without_float64() -> Iterator[None]:
    """Make the CPU a device without float64, such as Apple's GPUs."""
    with pytest.MonkeyPatch.context() as patch, _NoFloat64():
        patch.setattr(precision, "DEVICES_WITHOUT_FLOAT64", {"cpu"})
        yield


@contextmanager
def without_reads() -> Iterator[None]:
    """Make the CPU an accelerator: what would make the host wait for it is an error."""
    with pytest.MonkeyPatch.context() as patch, _NoReads():
        patch.setattr(precision, "DEVICES_OF_THE_HOST", set())
        yield
