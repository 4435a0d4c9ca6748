"""Street View House Numbers, read from the two .mat files of cropped digits."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import flag
from kdzoo.data.files.download import download
from kdzoo.data.files.folders import cache_root, find_root, search_root
from kdzoo.data.files.mat import check_published, read_mat
from kdzoo.data.loading.tensors import UNSCALED, pixels_to_floats
from kdzoo.data.memory import InMemoryData
from kdzoo.errors import DataError

_FOLDER = "svhn"
# Mean and standard deviation of the channels of the 73,257 training images, divided by 255; the values in common use.
_MEAN = (0.4377, 0.4438, 0.4728)
_STD = (0.1980, 0.2010, 0.1970)


class SVHN(InMemoryData):
    """Digits cut from photographs of house numbers (Netzer et al. 2011) as float32 ``[3, 32, 32]``.

    73,257 images are for train and val and 26,032 for test; the extra set is not used. The files ``train_32x32.mat``
    and ``test_32x32.mat`` are searched in ``<root>/svhn`` and ``<root>``. Without ``root``, the roots are
    ``$KDZOO_DATA`` and ``~/.cache/kdzoo``, and ``prepare_data()`` downloads them to the latter if neither has them.

    Args:
        root: Folder of the data; None searches the default roots.
        normalise: Whether to subtract each channel's published mean and divide by its standard deviation; otherwise
            pixels are in [0, 1].
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If a file is missing, is not the published one, or cannot be downloaded.

    Example:
        >>> SVHN(augment={"shift": 2}).is_augmented
        True
    """

    url: ClassVar[str] = "https://ufldl.stanford.edu/housenumbers"
    sha256: ClassVar[dict[str, str]] = {
        "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    }

    def __init__(self, *, root: str | Path | None = None, normalise: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.root = root
        self.normalise = flag("normalise", normalise)

    @property
    def pixels(self) -> Scaling:
        """Mean and standard deviation of each channel: a value is ``(pixel / 255 - mean) / std``."""
        return {"mean": _MEAN, "std": _STD} if self.normalise else UNSCALED

    def prepare_data(self) -> None:
        """Download the files if no ``root`` is given and none of the default roots has them."""
        if self.root is None and search_root(None, _FOLDER, tuple(self.sha256)) is None:
            for file, sha256 in self.sha256.items():
                download(f"{self.url}/{file}", cache_root() / _FOLDER / file, sha256)

    def load(self) -> tuple[Any, Any]:
        """Read both files."""
        folder = find_root(self.root, _FOLDER, tuple(self.sha256))
        for file, sha256 in self.sha256.items():
            check_published(folder / file, sha256)
        train, test = (read_digits(folder / file) for file in self.sha256)
        return self._floats(*train), self._floats(*test)

    def _floats(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        return pixels_to_floats(pixels, **self.pixels), labels


def read_digits(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]``, 0 for the digit 0, of one file.

    Raises:
        DataError: If the file is missing or damaged, or its arrays are not X uint8 ``[32, 32, 3, n]`` and y in 1..10
            ``[n, 1]``.
    """
    images, labels = read_mat(path, ("X", "y"))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X is {images.dtype} {list(images.shape)}; allowed: uint8 [32, 32, 3, n]")
    if labels.shape != (images.shape[3], 1) or labels.dtype.kind not in "iu":
        kind = f"{labels.dtype} {list(labels.shape)}"
        raise DataError(f"{path}: y is {kind}; allowed: integers [{images.shape[3]}, 1]")
    if len(labels) and not (labels.min() >= 1 and labels.max() <= 10):
        raise DataError(f"{path}: y is in {labels.min()}..{labels.max()}; allowed: 1..10")
    # The files label the digit 0 as 10, because indices of MATLAB begin with 1.
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels[:, 0].astype(np.int64) % 10
