"""What the distillers of graphical models share: the noise and the conditions that come with a batch."""

from collections.abc import Mapping

from torch import Tensor

from kdzoo.batch import Batch

_NOISE, _GIVEN = "noise.", "given."


def noise_in(batch: Batch) -> dict[str, Tensor]:
    """Return the noise in a batch by node; nothing if the batch has none."""
    return _stripped(batch, _NOISE)


def inputs_in(batch: Batch) -> dict[str, Tensor]:
    """Return the values of inputs that were drawn for a batch, by node; nothing if it has none."""
    return _stripped(batch, _GIVEN)


def named(noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return noise by node as the tensors of a batch."""
    return {f"{_NOISE}{name}": value for name, value in noise.items()}


def named_inputs(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return drawn inputs by node as the tensors of a batch."""
    return {f"{_GIVEN}{name}": value for name, value in values.items()}


def _stripped(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
