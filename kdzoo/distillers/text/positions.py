"""Selecting tokens: the positions of a mask, and batches without trailing padding."""

from torch import Tensor

from kdzoo.core.batch import Batch


def select_positions(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the values ``[n, d]`` at the positions of a mask.

    Args:
        values: ``[batch, ..., d]``.
        mask: ``[batch, ...]``; None for all positions.
    """
    if mask is None or bool(mask.all()):
        return values.flatten(0, -2)  # no copy: the logits of a large vocabulary are most of a step's memory
    return values[mask]


def without_padding(batch: Batch, pad_id: int | None) -> Batch:
    """Return a batch without trailing columns of padding, so that a micro-batch of short texts takes less time.

    Args:
        batch: With ``input`` ``[batch, length]``.
        pad_id: Id of the padding token, for a batch without a mask; None if there is none.
    """
    if "mask" in batch:
        is_token = batch["mask"]
    elif pad_id is not None:
        is_token = batch["input"] != pad_id
    else:
        return batch
    columns = is_token.any(0).nonzero()
    length = int(columns.max()) + 1 if len(columns) else 1  # models cannot read texts of length 0
    shape = batch["input"].shape
    return {key: value[:, :length] if value.shape == shape else value for key, value in batch.items()}
