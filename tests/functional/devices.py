"""A device without float64, simulated on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdzoo.core import precision


class _NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{func} makes a float64 tensor, which this device does not have")
        return result


@contextmanager
def without_float64() -> Iterator[None]:
    """Make the CPU a device without float64, such as Apple's GPUs."""
    with pytest.MonkeyPatch.context() as patch, _NoFloat64():
        patch.setattr(precision, "DEVICES_WITHOUT_FLOAT64", {"cpu"})
        yield
