"""From what a user's loader yields to a dictionary with input, target and index."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.errors import DataError

INPUT_NAMES = ("input", "inputs", "x", "image", "images", "img", "pixel_values", "features", "data")
TARGET_NAMES = ("target", "targets", "y", "label", "labels")


class Keys(NamedTuple):
    """Where inputs and targets lie in batches that are mappings; None tries the usual names."""

    input: str | None = None
    target: str | None = None


def to_batch(batch: Any, index: Tensor, keys: Keys) -> Batch:
    """Return a user's batch as a dictionary.

    Args:
        batch: inputs [b, ...]; or (inputs,), (inputs, labels); or a mapping, whose other tensors are kept.
        index: int64 [b], the samples' positions.
        keys: names in mappings.

    Raises:
        DataError: inputs or labels cannot be found, or their shape or type is wrong.

    Example:
        >>> sorted(to_batch({"x": torch.rand(2, 3), "label": torch.tensor([0, 1])}, torch.arange(2), Keys()))
        ['index', 'input', 'target']
    """
    inputs, target, others = _parts(batch, keys)
    if not isinstance(inputs, Tensor) or len(inputs) != len(index):
        found = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError(f"a batch's inputs are {found}; allowed: a tensor with {len(index)} samples")
    if inputs.is_floating_point():
        inputs = inputs.to(torch.float32)
    return others | {"input": inputs, "target": _labels(target, len(index)), "index": index}


class ConvertedBatches:
    """A user's evaluation loader whose batches are converted; index counts the samples that it yields."""

    def __init__(self, loader: Iterable[Any], keys: Keys) -> None:
        self.loader = loader
        self.keys = keys

    def __len__(self) -> int:
        if not isinstance(self.loader, Sized):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        done = 0
        for batch in self.loader:
            inputs = _parts(batch, self.keys)[0]
            index = torch.arange(done, done + len(inputs))
            done += len(inputs)
            yield to_batch(batch, index, self.keys)

    def count(self) -> int:
        """Return the number of samples, without a pass over the data where the loader knows it."""
        dataset = getattr(self.loader, "dataset", None)
        if isinstance(dataset, Sized):
            return len(dataset)
        return sum(len(batch["index"]) for batch in self)


def _parts(batch: Any, keys: Keys) -> tuple[Any, Any, Batch]:
    """Return inputs, labels (None where there are none) and the other tensors."""
    if isinstance(batch, Mapping):
        input_key = _find(batch, keys.input, INPUT_NAMES, "input_key")
        target_key = _find(batch, keys.target, TARGET_NAMES, "target_key", required=keys.target is not None)
        used = (input_key, target_key)
        others = {k: v for k, v in batch.items() if k not in used and isinstance(v, Tensor)}
        return batch[input_key], None if target_key is None else batch[target_key], others
    if isinstance(batch, Tensor):
        return batch, None, {}
    if isinstance(batch, Sequence) and 1 <= len(batch) <= 2:
        return batch[0], batch[1] if len(batch) == 2 else None, {}
    raise DataError(f"a batch is {type(batch).__name__}; allowed: a tensor, (x,), (x, y) or a mapping")


def _find(
    batch: Mapping[str, Any], chosen: str | None, usual: Sequence[str], name: str, required: bool = True
) -> str | None:
    candidates = usual if chosen is None else (chosen,)
    found = next((key for key in candidates if key in batch), None)
    if found is None and required:
        raise DataError(f"{name}={chosen!r} finds nothing in a batch with the keys {list(batch)}; choose one of them")
    return found


def _labels(target: Any, n: int) -> Tensor:
    if target is None:
        return torch.full((n,), IGNORE)
    if not isinstance(target, Tensor) or target.shape != (n,) or target.is_floating_point():
        found = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise DataError(f"a batch's targets are {found}; allowed: integers [{n}]")
    return target.to(torch.int64)
