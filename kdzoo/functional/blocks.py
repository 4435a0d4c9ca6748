"""Functions of many rows of logits, applied to blocks of rows whose temporaries stay in a processor's cache."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.precision import host_may_read

BLOCK = 1 << 15  # logits at once: 256 KiB in float64, of which several share a second-level cache of 0.5 to 2 MiB


def by_rows(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
    """Apply a function of rows to blocks of them, on a CPU; elsewhere, and where a compiler fuses operations, to all.

    Args:
        function: Takes tensors that share their leading dimensions ``[...]`` and returns such tensors.
        *arguments: The first ``[..., classes]``; the others ``[..., any]`` or ``[...]``.
    """
    first = arguments[0]
    leading = first.shape[:-1]
    rows = max(1, BLOCK // max(1, first.shape[-1]))
    if not host_may_read(first) or leading.numel() <= rows:
        return function(*arguments)
    flat = [value.reshape(leading.numel(), *value.shape[len(leading) :]) for value in arguments]
    blocks = zip(*(value.split(rows) for value in flat), strict=True)
    results = zip(*(function(*block) for block in blocks), strict=True)
    concatenated = (torch.cat(blocks) for blocks in results)
    return tuple(value.reshape(leading + value.shape[1:]) for value in concatenated)


def batch_first(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> list[Tensor]:
    """Return the arguments of an autograd function's ``vmap`` with the mapped dimension first, repeated if absent.

    Args:
        info: What torch hands to ``vmap``; ``batch_size`` is used.
        in_dims: The mapped dimension of each argument, or None; those of further arguments are left aside.
        *arguments: The tensors.
    """
    return [
        value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip(arguments, in_dims, strict=False)
    ]


def with_known_signature(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    """Note the signature of an autograd function's ``forward`` on it (a class decorator).

    ``apply`` asks ``inspect.signature`` for it at every call, which otherwise builds it again and takes as long as a
    dozen operations on a small batch.
    """
    function.forward.__signature__ = inspect.signature(function.forward)  # type: ignore[attr-defined]
    return function
