"""The format of a batch: a dictionary of tensors that share their first dimension, the samples.

b samples; T time steps or tokens; V tokens with the end token S = V - 1. Only ``input`` is required.

============  =========================  ===============================================================================
input         float, long ``[b, ...]``   The argument of models. Token sequences begin with the token S.
target        long ``[b]``, ``[b, T]``   Class of each sample or position; ``IGNORE`` where there is no label. Of token
                                         sequences: the next token, and S at the end.
index         long ``[b]``               Row of the split, the key of cached teacher outputs.
mask          bool ``[b, T]``            The valid positions; False where padded. Absent means that all are valid.
truth         float64 ``[b, T, V]``      Log-probabilities (nats) of the next token under the automaton that the
                                         sequences were drawn from; -inf for impossible tokens, uniform where padded.
                                         Only in val and test batches, and only if that automaton is known.
length        long ``[b]``               Number of valid steps, which replaces ``mask`` in batches with noise.
noise.<node>  float ``[b, ...]``         Noise of a node of a generative model.
member        long ``[b]``               Number of the language model that the sequence was sampled from.
============  =========================  ===============================================================================
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kdzoo.core.precision import host_may_read
from kdzoo.errors import DataError

# The default ``ignore_index`` of torch's losses, so that targets can be passed to them unchanged.
IGNORE = -100
"""Target of a position without a label."""

Batch = dict[str, Tensor]
"""Tensors by name that share their first dimension; see the table above."""

Positions = Tensor | tuple[Tensor, ...] | EllipsisType
"""An index that selects positions of a tensor: a mask, one tensor of indices for each dimension, or ``...`` for all."""


_HOST_COPIES = WeakTensorKeyDictionary()
"""The copy in the host's memory of each tensor of a DeviceBatch, as long as the tensor is used."""


class DeviceBatch(dict[str, Tensor]):
    """A batch on an accelerator that keeps the tensors of integers and booleans in the host's memory as well.

    These are labels, masks, token ids and row numbers, which determine the positions that losses are computed at.
    Reading a value from an accelerator, or indexing with a mask there, blocks the host until the device has finished
    all queued work. The functions of this module read the copies instead, so that a training step does not block.

    Args:
        moved: The batch on the accelerator.
        original: The same batch in the host's memory; what is missing there is copied from the accelerator, which
            blocks. Code that rebuilds a dictionary from its items, as torch's data parallelism does in every step,
            gives None; the copies of its tensors are known from before.
    """

    def __init__(
        self, moved: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], original: Batch | None = None
    ) -> None:
        super().__init__(moved)
        self.host: Batch = {}
        for key, value in self.items():
            if _belongs_on_host(value):
                self._keep(key, value, None if original is None else original.get(key))

    def __setitem__(self, key: str, value: Tensor) -> None:
        """Store a tensor, and its copy in the host's memory if it holds integers or booleans."""
        super().__setitem__(key, value)
        if _belongs_on_host(value):
            self._keep(key, value, None)

    def _keep(self, key: str, value: Tensor, original: Tensor | None) -> None:
        """Keep the copy of a tensor in the host's memory: the one given, a known one, or one that is made here."""
        known = _HOST_COPIES.get(value) if original is None else original
        self.host[key] = value.cpu() if known is None else known.cpu()
        _HOST_COPIES[value] = self.host[key]


def _belongs_on_host(values: Tensor) -> bool:
    """Return whether values may determine positions, which those of a floating-point type do not."""
    return not (values.is_floating_point() or values.is_complex())


def on_host(batch: Batch) -> Batch:
    """Return tensors that can be read without waiting: the host copies of a batch on an accelerator, or the batch."""
    return batch.host if isinstance(batch, DeviceBatch) else batch


def as_batch(batch: Any) -> Batch:
    """Return ``batch`` as a dictionary with the keys of the table above.

    Args:
        batch: A mapping with the key ``input``, a pair (input, target), or a sequence of the input alone.

    Raises:
        DataError: The batch is none of these.
    """
    if isinstance(batch, Mapping) and "input" in batch:
        return batch if isinstance(batch, dict) else dict(batch)
    if isinstance(batch, list | tuple) and 1 <= len(batch) <= 2:
        return dict(zip(("input", "target"), batch, strict=False))
    keys = f"a mapping with keys {list(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
    raise DataError(f"a batch must be a dict with 'input' or a pair (input, target), got {keys}")


def micro_batches(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yield consecutive micro-batches of at most ``size`` samples; the whole batch if ``size`` is None."""
    n = n_samples(batch)
    if size is None or size >= n:
        yield batch
        return
    for start in range(0, n, size):
        yield map_batch(batch, itemgetter(slice(start, start + size)))


def map_batch(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """Return a batch with a function applied to every tensor, and to the host copies of a batch on an accelerator."""
    mapped = {key: function(value) for key, value in batch.items()}
    if isinstance(batch, DeviceBatch):
        return DeviceBatch(mapped, {key: function(value) for key, value in batch.host.items()})
    return mapped


def n_samples(batch: Batch) -> int:
    """Return the number of samples, the first dimension."""
    return len(batch["input"])


def valid_positions(batch: Batch) -> Positions:
    """Return an index of the valid positions; ``...`` selects all, for example if the batch has no mask."""
    return _selection(batch, on_host(batch)["mask"]) if "mask" in batch else ...


def labelled_positions(batch: Batch) -> Tensor:
    """Return a mask of the valid positions that have a label, bool with the shape of the target.

    To select these positions, use :func:`labelled_selection`, which does not wait for an accelerator.
    """
    target = batch.get("target")
    if target is None:
        return torch.zeros(n_samples(batch), dtype=torch.bool, device=batch["input"].device)
    labelled = target != IGNORE
    return labelled & batch["mask"] if "mask" in batch else labelled


def labelled_selection(batch: Batch) -> Positions:
    """Return an index of the valid positions that have a label."""
    if "target" not in batch:
        return batch["input"].new_empty(0, dtype=torch.long)
    host = on_host(batch)
    labelled = host["target"] != IGNORE
    return _selection(batch, labelled & host["mask"] if "mask" in host else labelled)


def labels(batch: Batch) -> Tensor:
    """Return the labels of the n labelled positions, long ``[n]``."""
    if "target" not in batch:
        return batch["input"].new_empty(0, dtype=torch.long)
    return batch["target"][labelled_selection(batch)]


def _selection(batch: Batch, mask: Tensor) -> Positions:
    """Return an index of the positions where a mask is True; the mask of a DeviceBatch is in the host's memory.

    Selecting every position would only copy the logits, and scatter their gradient in the backward pass.
    """
    if not isinstance(batch, DeviceBatch):
        return ... if mask.ndim == 1 and host_may_read(mask) and mask.all() else mask
    host_mask = mask.numpy()  # raises an error for a mask on the accelerator, where indexing would wait unnoticed
    if host_mask.ndim == 1 and host_mask.all():
        return ...
    device = batch["input"].device
    return tuple(torch.from_numpy(indices).to(device, non_blocking=True) for indices in np.nonzero(host_mask))


def labelled_samples(batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Return the labelled samples of several batches: inputs ``[n, ...]`` and targets, long ``[n]``."""
    as_dicts = [as_batch(batch) for batch in batches]
    inputs = torch.cat([batch["input"][labelled_positions(batch)] for batch in as_dicts])
    return inputs, torch.cat([labels(batch) for batch in as_dicts])
