"""CIFAR-10, read from its official binary files or from a smaller .npz archive."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import flag
from kdzoo.data.files.download import download, unpack_members
from kdzoo.data.files.folders import cache_root, find_root, read_npz, search_root
from kdzoo.data.loading.tensors import UNSCALED, pixels_to_floats
from kdzoo.data.memory import InMemoryData
from kdzoo.errors import DataError

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# Of the binary version, as in the checksums of TensorFlow Datasets.
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_FILES = (*_TRAIN_FILES, "test_batch.bin")
_ARCHIVE = "cifar10_subset.npz"
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_HELD_OUT = ("x_holdout", "y_holdout")
_PIXELS = 3 * 32 * 32  # a record of the binary files is one byte of label and then the three channels
# Mean and standard deviation of the channels of the 50,000 training images, divided by 255. They are the ones in common
# use; weights that were trained elsewhere expect them.
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2470, 0.2435, 0.2616)

Pixels = npt.NDArray[np.uint8]


class CIFAR10(InMemoryData):
    """Small colour photographs of ten classes (Krizhevsky 2009) as float32 ``[3, 32, 32]``.

    ``cifar10_subset.npz`` (arrays x_train, y_train, x_test, y_test; images uint8 ``[n, 32, 32, 3]``) is searched
    first, in ``<root>/cifar10`` and ``<root>``; then the six official .bin files, there and in
    ``<root>/cifar-10-batches-bin``. Without ``root``, the roots are ``$KDZOO_DATA`` and ``~/.cache/kdzoo``, and
    ``prepare_data()`` downloads the binary files (162 MB) to the latter if it finds neither.

    Args:
        root: Folder of the data; None searches the default roots.
        normalise: Whether to subtract each channel's published mean and divide by its standard deviation; otherwise
            pixels are in [0, 1].
        held_out: Whether to add the archive's second held-out set (arrays x_holdout, y_holdout) to the test split.
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If a file or array is missing or damaged, or cannot be downloaded.

    Example:
        >>> CIFAR10(augment={"crop": 4, "flip": True}).is_augmented
        True
    """

    def __init__(
        self, *, root: str | Path | None = None, normalise: bool = True, held_out: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.root = root
        self.normalise = flag("normalise", normalise)
        self.held_out = flag("held_out", held_out)

    @property
    def pixels(self) -> Scaling:
        """Mean and standard deviation of each channel: a value is ``(pixel / 255 - mean) / std``."""
        return {"mean": _MEAN, "std": _STD} if self.normalise else UNSCALED

    def prepare_data(self) -> None:
        """Download and unpack the binary files if no ``root`` is given and no default root has the data."""
        if self.root is None and self._archive_folder() is None and self._binary_folder() is None:
            folder = cache_root() / "cifar10"
            archive = folder / Path(_URL).name
            download(_URL, archive, _SHA256)
            unpack_members(archive, _FILES, folder)
            archive.unlink()

    def load(self) -> tuple[Any, Any]:
        """Read the archive or the binary files."""
        if (folder := self._archive_folder()) is not None:
            train_x, train_y, test_x, test_y = read_npz(folder / _ARCHIVE, _ARRAYS)
            if self.held_out:
                more_x, more_y = read_npz(folder / _ARCHIVE, _HELD_OUT)
                test_x, test_y = np.concatenate([test_x, more_x]), np.concatenate([test_y, more_y])
            train, test = (
                (_channels_first(train_x, "x_train"), train_y),
                (_channels_first(test_x, "x_test"), test_y),
            )
        elif self.held_out:
            raise DataError(f"held_out=true needs {_ARCHIVE} with {' and '.join(_HELD_OUT)}")
        else:
            folder = self._binary_folder() or find_root(self.root, "cifar10", _FILES)
            *batches, test = (read_records(folder / file) for file in _FILES)
            train = np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
        return (self._floats(train[0]), train[1]), (self._floats(test[0]), test[1])

    # The archive and the binary files are searched anew in prepare_data and load: under several processes only one of
    # them calls prepare_data, so that nothing found there may be stored.
    def _archive_folder(self) -> Path | None:
        return search_root(self.root, "cifar10", [_ARCHIVE])

    def _binary_folder(self) -> Path | None:
        names = ("cifar10", "cifar-10-batches-bin")
        folders = (search_root(self.root, name, _FILES) for name in names)
        return next((folder for folder in folders if folder is not None), None)

    def _floats(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        return pixels_to_floats(pixels, **self.pixels)


def read_records(path: Path) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]`` of one official binary file.

    Raises:
        DataError: If the file cannot be read, or its length is not a positive number of records.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    if not len(content) or len(content) % (1 + _PIXELS):
        raise DataError(f"{path} has {len(content)} bytes; allowed: a positive multiple of {1 + _PIXELS}")
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _channels_first(pixels: npt.NDArray[Any], name: str) -> Pixels:
    """Return uint8 ``[n, 32, 32, 3]`` as ``[n, 3, 32, 32]``."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (32, 32, 3):
        raise DataError(f"{name} is {pixels.dtype} {list(pixels.shape)}; allowed: uint8 [n, 32, 32, 3]")
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
