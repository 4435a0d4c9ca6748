"""Labelled pictures that stay bytes until they are in a batch, and the file that keeps them decoded."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.data.files.folders import cache_root
from kdzoo.data.loading.split_data import DataSplit
from kdzoo.data.loading.tensors import pixels_to_floats
from kdzoo.errors import DataError
from kdzoo.storage.atomic import write_file

_BLOCK = 1024

Pixels = npt.NDArray[np.uint8]


class Pictures(DataSplit):
    """Some of the pictures of an array, and the class of each.

    Args:
        pixels: uint8 [N, 3, height, width], possibly mapped from a file.
        rows: int64 [n], which of them.
        targets: int64 [n].
    """

    def __init__(self, pixels: Pixels, rows: Tensor, targets: Tensor) -> None:
        self.pixels = pixels
        self.rows = rows
        self.targets = targets

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> "Pictures":
        """Return the pictures at ``rows`` (int64 [m]), in this order."""
        return Pictures(self.pixels, self.rows[rows], self.targets[rows])

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` float32 [b, 3, height, width] in [0, 1] and ``target`` int64 [b]."""
        inputs = torch.from_numpy(pixels_to_floats(self._bytes(self.rows[index])))
        return {"input": inputs, "target": self.targets.index_select(0, index)}

    def content(self) -> Iterator[Tensor]:
        """Yield the bytes of the pictures in blocks."""
        return (torch.from_numpy(self._bytes(rows)) for rows in self.rows.split(_BLOCK))

    def _bytes(self, rows: Tensor) -> Pixels:
        return np.asarray(self.pixels[rows.numpy()])


def decoded_pictures(folder: Path, names: Sequence[str], *, name: str, size: int) -> Pixels:
    """Return all pictures as uint8 [n, 3, size, size], mapped from a file that is made when it is not there.

    The file, ``~/.cache/kdzoo/<name>/pixels_<size>_<key>.npy``, belongs to the pictures' names and lengths in bytes,
    from which its key is computed. It appears when it is whole.

    Args:
        folder: where the pictures are.
        names: file names in the wanted order.
        name: the data set's own folder in the cache.
        size: height and width after resizing, >= 1.

    Raises:
        DataError: a picture is missing or damaged, or the decoded file is.
        RunFolderError: the decoded file cannot be written.
    """
    files = [folder / one for one in names]
    shape = (len(files), 3, size, size)
    cached = cache_root() / name / f"pixels_{size}_{_key(files)}.npy"
    if not cached.is_file():

        def fill(path: Path) -> None:
            with path.open("wb") as target:  # written, not mapped: a full disk is then an error instead of a crash
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(target, header)
                for file in files:
                    target.write(decode_picture(file, size).tobytes())

        write_file(cached, fill)
    try:
        pixels = np.load(cached, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{cached} is damaged ({error}); delete it, and it is made again") from error
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise DataError(f"{cached} is {found}; allowed: uint8 {list(shape)}; delete it, and it is made again")
    return pixels


def decode_picture(path: Path, size: int) -> Pixels:
    """Return a JPEG as uint8 [3, size, size], red, green and blue, resized by a bilinear filter without cropping.

    Raises:
        DataError: it is missing or damaged.
    """
    from PIL import Image  # imported here: few need it

    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is missing or no whole JPEG ({error})") from error
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def _key(files: Sequence[Path]) -> str:
    """Return 16 hex digits that depend on the files' names and lengths, in their order."""
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        except OSError as error:
            raise DataError(f"{file} is missing or cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:16]
