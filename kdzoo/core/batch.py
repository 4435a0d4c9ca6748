"""What a batch is: a dictionary of tensors that share their first dimension.

========  ===================  =====================================================================
input     float or long [b, …]  what the models are called with
target    long [b, …]           class of each position; ``IGNORE`` where the label is missing
index     long [b]              row of the training split, the key of the teacher-output cache
mask      bool [b, …]           valid positions of padded sequences; absent means that all are valid
========  ===================  =====================================================================
"""

from collections.abc import Iterable, Iterator, Mapping
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from kdzoo.errors import DataError

IGNORE = -100
"""Target of a position without a label; torch's losses ignore the same value by default."""

Batch = dict[str, Tensor]
"""Tensors by name that share their first dimension; see the table above."""


def as_batch(batch: Any) -> Batch:
    """Return ``batch`` as a dictionary: mappings are kept, pairs become input and target.

    Raises:
        DataError: it is neither a mapping with an ``input`` nor a sequence of (input, target).
    """
    if isinstance(batch, Mapping) and "input" in batch:
        return batch if isinstance(batch, dict) else dict(batch)
    if isinstance(batch, list | tuple) and 1 <= len(batch) <= 2:
        return dict(zip(("input", "target"), batch, strict=False))
    keys = f"a mapping with keys {list(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
    raise DataError(f"a batch must be a dict with 'input' or a pair (input, target), got {keys}")


def split(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yield micro-batches of at most ``size`` samples; the whole batch when ``size`` is None."""
    n = n_samples(batch)
    if size is None or size >= n:
        yield batch
        return
    for start in range(0, n, size):
        yield {key: value[start : start + size] for key, value in batch.items()}


def n_samples(batch: Batch) -> int:
    """Return the number of samples, the first dimension."""
    return len(batch["input"])


def valid_positions(batch: Batch) -> Tensor | EllipsisType:
    """Return what selects the valid positions: the mask, or ``...`` when every position is valid."""
    return batch.get("mask", ...)


def labelled_positions(batch: Batch) -> Tensor:
    """Return the valid positions that have a label (bool, the shape of the target)."""
    target = batch.get("target")
    if target is None:
        return torch.zeros(n_samples(batch), dtype=torch.bool, device=batch["input"].device)
    labelled = target != IGNORE
    return labelled & batch["mask"] if "mask" in batch else labelled


def labels(batch: Batch) -> Tensor:
    """Return the labels of the labelled positions, flat (long, [n])."""
    labelled = labelled_positions(batch)
    return batch["target"][labelled] if "target" in batch else labelled.new_empty(0, dtype=torch.long)


def labelled_samples(batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Return the labelled samples of many batches: inputs [n, ...] and targets [n]."""
    rows = [as_batch(batch) for batch in batches]
    inputs = torch.cat([batch["input"][labelled_positions(batch)] for batch in rows])
    return inputs, torch.cat([labels(batch) for batch in rows])
