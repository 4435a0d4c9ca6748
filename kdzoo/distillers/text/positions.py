"""Selecting tokens: the logits at positions of a batch, and batches without trailing padding."""

from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from kdzoo.core.batch import Batch, Positions, map_batch, on_host
from kdzoo.core.precision import host_may_read


def select_positions(values: Tensor, positions: Positions) -> Tensor:
    """Return the values ``[n, d]`` at the valid or labelled positions of a batch.

    Args:
        values: ``[batch, ..., d]``.
        positions: What ``valid_positions`` or ``labelled_selection`` of :mod:`kdzoo.core.batch` returns.
    """
    if isinstance(positions, Tensor) and positions.dtype == torch.bool and positions.all():
        positions = ...
    if isinstance(positions, EllipsisType):
        return values.flatten(0, -2)  # no copy: the logits of a large vocabulary are most of a step's memory
    return values[positions]


def without_padding(batch: Batch, pad_id: int | None) -> Batch:
    """Return a batch without trailing columns of padding, so that a micro-batch of short texts takes less time.

    Args:
        batch: With ``input`` ``[batch, length]``.
        pad_id: Id of the padding token, for a batch without a mask; None if there is none.
    """
    if "mask" in batch:
        is_token = on_host(batch)["mask"]
    elif pad_id is not None and host_may_read(batch["input"]):
        is_token = batch["input"] != pad_id
    else:  # reading token ids from an accelerator would block for longer than the padding costs
        return batch
    columns = np.flatnonzero(is_token.any(0).cpu().numpy())
    length = int(columns[-1]) + 1 if len(columns) else 1  # models cannot read texts of length 0
    shape = batch["input"].shape
    return map_batch(batch, lambda value: value[:, :length] if value.shape == shape else value)
