"""Selecting tokens: values at positions of a batch, and batches without trailing padding."""

from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from kdzoo.core.batch import Batch, DeviceBatch, Positions, map_batch, on_host


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


def text_of_tokens(batch: Batch, positions: Positions) -> Tensor:
    """Return the row of the batch that each selected position is in, ``[n]``, in the order of ``select_positions``."""
    n_texts, length = batch["input"].shape
    rows = torch.arange(n_texts, device=batch["input"].device)[:, None, None].expand(n_texts, length, 1)
    return select_positions(rows, positions)[:, 0]


def with_mask(batch: Batch, pad_id: int | None) -> Batch:
    """Return a batch with a mask: its own, or the positions of its ``input`` that are not ``pad_id``.

    A batch without either is returned as it is; all of its positions are valid.
    """
    if "mask" in batch or pad_id is None:
        return batch
    mask = {"mask": batch["input"] != pad_id}
    if isinstance(batch, DeviceBatch):
        return DeviceBatch({**batch, **mask}, {**batch.host, "mask": batch.host["input"] != pad_id})
    return {**batch, **mask}


def without_padding(batch: Batch, pad_id: int | None) -> Batch:
    """Return a batch without trailing columns of padding, so that a micro-batch of short texts takes less time.

    Args:
        batch: With ``input`` ``[batch, length]``.
        pad_id: Id of the padding token, for a batch without a mask; None if there is none.
    """
    is_token = on_host(with_mask(batch, pad_id)).get("mask")
    if is_token is None:
        return batch
    columns = np.flatnonzero(is_token.any(0).cpu().numpy())
    length = int(columns[-1]) + 1 if len(columns) else 1  # models cannot read texts of length 0
    shape = batch["input"].shape
    return map_batch(batch, lambda value: value[:, :length] if value.shape == shape else value)
