"""Labelled images that are stored as bytes until they are in a batch, and the file of decoded images."""

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

# Images that are hashed at once for the fingerprint: a memory-mapped file is read in pieces of some MB. The hash does
# not depend on it.
_BLOCK = 1024

Pixels = npt.NDArray[np.uint8]


class LabelledImages(DataSplit):
    """A split of n images out of an array of N, and the class of each.

    Args:
        pixels: uint8 ``[N, 3, height, width]``, possibly mapped from a file.
        rows: Rows of the images of this split, int64 ``[n]``.
        targets: Their classes, int64 ``[n]``.
    """

    def __init__(self, pixels: Pixels, rows: Tensor, targets: Tensor) -> None:
        self.pixels = pixels
        self.rows = rows
        self.targets = targets

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> "LabelledImages":
        """Return the images at ``rows`` (int64 ``[m]``), in this order."""
        return LabelledImages(self.pixels, self.rows[rows], self.targets[rows])

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` float32 ``[b, 3, height, width]`` in [0, 1] and ``target`` int64 ``[b]``."""
        inputs = torch.from_numpy(pixels_to_floats(self._bytes(self.rows[index])))
        return {"input": inputs, "target": self.targets.index_select(0, index)}

    def content(self) -> Iterator[Tensor]:
        """Yield the bytes of the images in blocks."""
        return (torch.from_numpy(self._bytes(rows)) for rows in self.rows.split(_BLOCK))

    def _bytes(self, rows: Tensor) -> Pixels:
        return np.asarray(self.pixels[rows.numpy()])


def decoded_images(folder: Path, names: Sequence[str], *, name: str, size: int) -> Pixels:
    """Return all images as uint8 ``[n, 3, size, size]``, mapped from a file that is made if it does not exist.

    The file is ``~/.cache/kdzoo/<name>/pixels_<size>_<key>.npy``; its key is computed from the names and lengths in
    bytes of the images. It gets this name only when it is complete.

    Args:
        folder: The folder of the images.
        names: File names in the order of the rows.
        name: The data set's own folder in the cache.
        size: Height and width after resizing, >= 1.

    Raises:
        DataError: If an image or the decoded file is missing or damaged.
        RunFolderError: If the decoded file cannot be written.
    """
    files = [folder / file_name for file_name in names]
    shape = (len(files), 3, size, size)
    cached = cache_root() / name / f"pixels_{size}_{_key(files)}.npy"
    if not cached.is_file():

        def fill(path: Path) -> None:
            # Written rather than mapped: on a full disk, a write raises an error and a memory map crashes the process.
            with path.open("wb") as target:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(target, header)
                for file in files:
                    target.write(decode_image(file, size).tobytes())

        write_file(cached, fill)
    try:
        pixels = np.load(cached, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{cached} is damaged ({error}); delete it, and it is made again") from error
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        kind = f"{pixels.dtype} {list(pixels.shape)}"
        raise DataError(f"{cached} is {kind}; allowed: uint8 {list(shape)}; delete it, and it is made again")
    return pixels


def decode_image(path: Path, size: int) -> Pixels:
    """Return a JPEG image as RGB, uint8 ``[3, size, size]``, resized by a bilinear filter without cropping.

    Raises:
        DataError: If it is missing or damaged.
    """
    from PIL import Image  # imported here, because only few data sets need it

    try:
        # Only JPEG: a damaged file is then never taken for another format. Pillow's bilinear filter averages over all
        # pixels when it shrinks an image, so that nothing aliases.
        with Image.open(path, formats=("JPEG",)) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is missing or not a complete JPEG ({error})") from error
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def _key(files: Sequence[Path]) -> str:
    """Return 16 hex digits that depend on the files' names and lengths, in their order."""
    # Lengths instead of contents, so that not every start has to read all images.
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        except OSError as error:
            raise DataError(f"{file} is missing or cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:16]
