"""Rows of named tensors in several safetensors files, which are read through memory maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdzoo.storage import atomic


class ShardedRows:
    """A tensor ``[n, ...]`` whose rows are in several parts; only the rows that are indexed are read.

    Args:
        parts: Contiguous tensors ``[rows, ...]`` of equal dtype and row shape, at least one, none of them empty.

    Raises:
        ValueError: The parts do not fit each other.

    Example:
        >>> rows = ShardedRows([torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])])
        >>> rows[torch.tensor([2, 0])]
        tensor([[3.],
                [1.]])
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        row_shapes, dtypes = {part.shape[1:] for part in parts}, {part.dtype for part in parts}
        if len(row_shapes) != 1 or len(dtypes) != 1 or not all(map(len, parts)):
            raise ValueError(f"parts must have rows of one shape and dtype, got {row_shapes} and {dtypes}")
        (self.row_shape,), (self.dtype,) = row_shapes, dtypes
        # As bytes, because NumPy, which copies a row in a fraction of the time that torch needs, has no bfloat16.
        self._parts = [_row_bytes(part) for part in parts]
        self._stops = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._stops[-1])

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole tensor."""
        return torch.Size([len(self), *self.row_shape])

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return a copy of the rows at ``index`` (int64 ``[b]`` on the CPU, from 0), ``[b, ...]``.

        Raises:
            IndexError: A position is outside of 0..n-1.
        """
        wanted = index.numpy()
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows are 0..{len(self) - 1}, got {wanted.min()}..{wanted.max()}")
        part_of = np.searchsorted(self._stops, wanted, side="right")
        # Row i of a part that stops at s and has n rows is row i - s of it, counted from its end.
        row_of = wanted - self._stops[part_of]
        result = torch.empty(len(wanted), *self.row_shape, dtype=self.dtype)
        rows = _row_bytes(result)
        for i, (part, row) in enumerate(zip(part_of.tolist(), row_of.tolist(), strict=True)):
            rows[i] = self._parts[part][row]
        return result


def _row_bytes(rows: Tensor) -> np.ndarray:
    """Return the bytes of each row ``[n, bytes]``, in the memory of the tensor."""
    return rows.view(len(rows), rows.shape[1:].numel()).view(torch.uint8).numpy()


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors ``[rows, ...]`` to ``path``, atomically; equal tensors give equal bytes.

    Raises:
        RunFolderError: The disk is full, or the folder cannot be written.
    """
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, temporary)
        except SafetensorError as error:  # the library wraps what the operating system says
            raise OSError(str(error)) from error

    atomic.write_file(path, save)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file that :func:`write` has written, memory-mapped.

    The maps are copy-on-write, so that nothing which is done to the tensors can change the file.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def join(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, ShardedRows]:
    """Return the rows of all shards by name, in order.

    Raises:
        ValueError: There are no shards, or they have different names, dtypes or row shapes.
    """
    if not shards or any(shard.keys() != shards[0].keys() for shard in shards):
        raise ValueError("shards must have tensors of the same names")
    return {name: ShardedRows([shard[name] for shard in shards]) for name in shards[0]}
