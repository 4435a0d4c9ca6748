"""Noise and drawn inputs of a graphical model as tensors of a batch, and back.

A batch is a flat dictionary, so the noise of node ``z`` is stored as ``noise.z`` and the value of input ``label`` as
``given.label``. A batch that has noise for several purposes has a prefix for each, as in ``old_noise.z``.
"""

from collections.abc import Mapping

from torch import Tensor

from kdzoo.core.batch import Batch

_NOISE, _INPUT = "noise.", "given."


def pack_noise(noise: Mapping[str, Tensor], purpose: str = "") -> dict[str, Tensor]:
    """Return noise by node as the tensors of a batch.

    Args:
        noise: Noise ``[n, ...]`` by name of the node.
        purpose: Prefix of the names, where a batch has noise for several purposes.

    Example:
        >>> list(pack_noise({"z": Tensor()}, "old_"))
        ['old_noise.z']
    """
    return _with_prefix(noise, purpose + _NOISE)


def unpack_noise(batch: Batch, purpose: str = "") -> dict[str, Tensor]:
    """Return the noise in a batch by node; an empty dictionary if the batch has none for this purpose."""
    return _without_prefix(batch, purpose + _NOISE)


def pack_inputs(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return drawn values of inputs ``[n, ...]`` by node as the tensors of a batch."""
    return _with_prefix(values, _INPUT)


def unpack_inputs(batch: Batch) -> dict[str, Tensor]:
    """Return the values of inputs that were drawn for a batch, by node; an empty dictionary if it has none."""
    return _without_prefix(batch, _INPUT)


def _with_prefix(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in values.items()}


def _without_prefix(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
