"""Conversion of the batches of a user's loader to dictionaries with ``input``, ``target`` and ``index``."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.data.loading.class_labels import hide_missing
from kdzoo.errors import DataError

# Names that batches of torchvision wrappers, Hugging Face image processors and common tutorials use, the most specific
# first: the first name that a batch has is taken.
INPUT_NAMES = ("input", "inputs", "x", "image", "images", "img", "pixel_values", "features", "data")
TARGET_NAMES = ("target", "targets", "y", "label", "labels")


class BatchFormat(NamedTuple):
    """How a user's loader writes its batches.

    Attributes:
        input_key: Name of the inputs in batches that are mappings; None tries ``INPUT_NAMES``.
        target_key: Name of the labels there; None tries ``TARGET_NAMES``.
        ignore_index: The label that stands for a missing one.
    """

    input_key: str | None = None
    target_key: str | None = None
    ignore_index: int = IGNORE


def to_batch(batch: Any, index: Tensor, layout: BatchFormat) -> Batch:
    """Return a user's batch as a dictionary.

    Args:
        batch: Inputs ``[b, ...]``; or ``(inputs,)`` or ``(inputs, labels)``; or a mapping, whose other tensors are
            kept.
        index: Positions of the samples, int64 ``[b]``.
        layout: How the batch is written.

    Raises:
        DataError: If inputs or labels are missing, or their shape or type is wrong.

    Example:
        >>> sorted(to_batch({"x": torch.rand(2, 3), "label": torch.tensor([0, 1])}, torch.arange(2), BatchFormat()))
        ['index', 'input', 'target']
    """
    inputs, target, others = _fields(batch, layout)
    if not isinstance(inputs, Tensor) or len(inputs) != len(index):
        kind = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError(f"a batch's inputs are {kind}; allowed: a tensor with {len(index)} samples")
    # float64 arrays become what models have; integers stay, because token ids are looked up in embeddings.
    if inputs.is_floating_point():
        inputs = inputs.to(torch.float32)
    return others | {"input": inputs, "target": _labels(target, len(index), layout.ignore_index), "index": index}


class ConvertedBatches:
    """A user's evaluation loader whose batches are converted; ``index`` counts the samples that it yields.

    Args:
        loader: The user's loader.
        layout: How its batches are written.
        max_samples: Stop after the batch with which this number of samples is reached; None for all.

    Raises:
        TypeError: By ``len``, if the loader has no length.
    """

    def __init__(self, loader: Iterable[Any], layout: BatchFormat, max_samples: int | None = None) -> None:
        self.loader = loader
        self.layout = layout
        self.max_samples = max_samples

    def __len__(self) -> int:
        if not isinstance(self.loader, Sized):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        n_batches = len(self.loader)
        if self.max_samples is not None and isinstance(self.loader, DataLoader) and self.loader.batch_size:
            return min(n_batches, math.ceil(self.max_samples / self.loader.batch_size))
        return n_batches

    def __iter__(self) -> Iterator[Batch]:
        n_done = 0
        for batch in self.loader:
            inputs = _fields(batch, self.layout)[0]
            index = torch.arange(n_done, n_done + len(inputs))
            n_done += len(inputs)
            yield to_batch(batch, index, self.layout)
            if self.max_samples is not None and n_done >= self.max_samples:
                return

    def count(self) -> int:
        """Return the number of samples, without a pass over the data if the loader knows it."""
        # The length of an iterable data set is only an estimate, and most have none: those are counted.
        is_whole = self.max_samples is None
        if is_whole and isinstance(self.loader, DataLoader) and isinstance(self.loader.dataset, Sized):
            return len(self.loader.dataset)
        return sum(len(batch["index"]) for batch in self)


def _fields(batch: Any, layout: BatchFormat) -> tuple[Any, Any, Batch]:
    """Return inputs, labels (None if there are none) and the other tensors of a batch."""
    if isinstance(batch, Mapping):
        input_key = _find(batch, layout.input_key, INPUT_NAMES, "input_key")
        target_key = _find(batch, layout.target_key, TARGET_NAMES, "target_key", required=layout.target_key is not None)
        # Strings, file names and other values that are not tensors are dropped: they cannot be moved to a device.
        others = {k: v for k, v in batch.items() if k not in (input_key, target_key) and isinstance(v, Tensor)}
        return batch[input_key], None if target_key is None else batch[target_key], others
    if isinstance(batch, Tensor):
        return batch, None, {}
    if isinstance(batch, Sequence) and 1 <= len(batch) <= 2:
        return batch[0], batch[1] if len(batch) == 2 else None, {}
    raise DataError(f"a batch is {type(batch).__name__}; allowed: a tensor, (x,), (x, y) or a mapping")


def _find(
    batch: Mapping[str, Any], chosen: str | None, usual: Sequence[str], name: str, required: bool = True
) -> str | None:
    """Return the key that the user chose, or the first of the usual ones that the batch has, or None."""
    candidates = usual if chosen is None else (chosen,)
    key = next((candidate for candidate in candidates if candidate in batch), None)
    if key is None and required:
        raise DataError(f"{name}={chosen!r} finds nothing in a batch with the keys {list(batch)}; choose one of them")
    return key


def _labels(target: Any, n: int, ignore_index: int) -> Tensor:
    """Return labels as int64 ``[n]``, all of them ``IGNORE`` if there are none."""
    if target is None:
        return torch.full((n,), IGNORE)
    if not isinstance(target, Tensor) or target.shape != (n,) or target.is_floating_point():
        kind = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise DataError(f"a batch's targets are {kind}; allowed: integers [{n}]")
    return hide_missing(target.to(torch.int64), ignore_index)
