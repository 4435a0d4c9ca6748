"""A simulated accelerator: the CPU plays the device, and what would make the host wait for it is an error.

Reading a value from an accelerator (``tensor.item()``, ``bool(tensor)``, ``nonzero``, indexing by a mask) blocks the
host until the device has done everything that was queued. The tensors that would be on the device are followed from
operation to operation by their memory, so that the same reads of tensors in the host's memory are allowed.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdzoo.core import precision

# Operations whose result is in the host's memory, or whose shape depends on values.
READS = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "repeat_interleave",
        "unique_consecutive",
        "unique_dim",
    )
}
# Indexing, whose second argument may be masks.
INDEXING = {f"aten::{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")}
# Methods that copy a tensor to the host without an operation that a dispatch mode sees.
COPIES = ("tolist", "numpy", "cpu", "__array__")
# transformers reads the attention mask of a text in every forward pass, in order to choose a faster kernel.
LIBRARIES_THAT_READ = ("transformers",)


class HostWaitsError(RuntimeError):
    """A value of the simulated accelerator was read."""


class _Accelerator(TorchDispatchMode):
    """Raise where a value on the device is read.

    Args:
        on_device: Tensors on the device; None puts every tensor there.
    """

    def __init__(self, on_device: Iterable[Tensor] | None) -> None:
        super().__init__()
        self._everything = on_device is None
        # The storages themselves are kept, so that their memory, by which they are known, is not used for others.
        self._storages: dict[int, torch.UntypedStorage] = {}
        for tensor in on_device or ():
            self._put(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(map(self._has, tensors)):
            name = func._schema.name
            masks = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)] if name in INDEXING else []
            by_mask = any(mask.dtype == torch.bool and self._has(mask) for mask in masks)
            if name in READS or by_mask:
                self.refuse(str(func))
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._put(leaf)
            return result
        return func(*args, **(kwargs or {}))

    def refuse(self, what: str) -> None:
        """Raise an error, unless a library that is known to read has asked for it."""
        if not _called_by_library():
            raise HostWaitsError(f"{what} makes the host wait for the device")

    def watched(self, name: str) -> Any:
        """Return a method of tensors that is refused for those on the device."""
        method = getattr(Tensor, name)

        def copy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._has(tensor):
                self.refuse(f"Tensor.{name}")
            return method(tensor, *args, **kwargs)

        return copy

    def _has(self, tensor: Tensor) -> bool:
        return self._everything or tensor.untyped_storage()._cdata in self._storages

    def _put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage


def _called_by_library() -> bool:
    """Return whether the operation was asked for by a library that reads, and not by torch or by the method."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_between(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES_THAT_READ


def _is_between(module: str) -> bool:
    """Return whether a module lies between whoever asked for an operation and this one."""
    return module == __name__ or module.partition(".")[0] == "torch"


@contextmanager
def simulated_accelerator(on_device: Iterable[Tensor] | None = None) -> Iterator[None]:
    """Make the CPU an accelerator, from which values cannot be read without waiting.

    Args:
        on_device: Tensors that are on the device, and with them everything that is computed from them; None puts
            every tensor there.

    Raises:
        HostWaitsError: Inside of the context, where a value of the device is read.

    Example:
        >>> values = torch.ones(2)
        >>> with simulated_accelerator([values]):
        ...     bool(torch.ones(1)), bool(values.sum())
        Traceback (most recent call last):
            ...
        kdzoo.contracts.accelerator.HostWaitsError: aten._local_scalar_dense.default makes the host wait for the device
    """
    accelerator = _Accelerator(on_device)
    with ExitStack() as stack:
        stack.enter_context(patch.object(precision, "DEVICES_OF_THE_HOST", set()))
        for name in COPIES:
            stack.enter_context(patch.object(Tensor, name, accelerator.watched(name)))
        stack.enter_context(accelerator)
        yield
