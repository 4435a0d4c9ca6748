"""MNIST and Fashion-MNIST, read from their IDX files."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import flag
from kdzoo.data.files.download import download
from kdzoo.data.files.folders import cache_root, find_file, find_root, search_root
from kdzoo.data.files.idx import read_idx
from kdzoo.data.loading.tensors import UNSCALED, pixels_to_floats
from kdzoo.data.memory import InMemoryData
from kdzoo.errors import DataError

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class IdxImages(InMemoryData):
    """60,000 training and 10,000 test images of 28 x 28 grey pixels as float32 ``[1, 28, 28]``.

    The four IDX files, gzipped or not, are searched for in ``<root>/<name>`` and ``<root>``. Without ``root``, the
    roots are ``$KDZOO_DATA`` and ``~/.cache/kdzoo``, and ``prepare_data()`` downloads them to the latter if neither
    has them.

    Args:
        root: Folder of the data; None searches the default roots.
        normalise: Whether to subtract the mean and divide by the standard deviation of all training pixels;
            otherwise pixels are in [0, 1].
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If a file is missing or damaged, or cannot be downloaded.
    """

    # What a subclass states about its data set.
    folder: ClassVar[str]
    url: ClassVar[str]
    sha256: ClassVar[tuple[str, str, str, str]]  # of the gzipped files, in the order of _FILES
    mean: ClassVar[float]
    std: ClassVar[float]

    def __init__(self, *, root: str | Path | None = None, normalise: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.root = root
        self.normalise = flag("normalise", normalise)

    @property
    def pixels(self) -> Scaling:
        """Mean and standard deviation of the one channel: a value is ``(pixel / 255 - mean) / std``."""
        return {"mean": (self.mean,), "std": (self.std,)} if self.normalise else UNSCALED

    def prepare_data(self) -> None:
        """Download the files if no ``root`` is given and none of the default roots has them."""
        if self.root is None and search_root(None, self.folder, _FILES) is None:
            for file, sha256 in zip(_FILES, self.sha256, strict=True):
                download(f"{self.url}/{file}.gz", cache_root() / self.folder / f"{file}.gz", sha256)

    def load(self) -> tuple[Any, Any]:
        """Read the four files."""
        folder = find_root(self.root, self.folder, _FILES)
        train_x, train_y, test_x, test_y = (read_idx(find_file(folder, file) or folder / file) for file in _FILES)
        return (self._images(train_x, folder), train_y), (self._images(test_x, folder), test_y)

    def _images(self, pixels: npt.NDArray[Any], folder: Path) -> npt.NDArray[np.float32]:
        if pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise DataError(
                f"{folder} has images {pixels.dtype} {list(pixels.shape)}; allowed: uint8 [n, height, width]"
            )
        return pixels_to_floats(pixels[:, None], **self.pixels)


class MNIST(IdxImages):
    """Handwritten digits (LeCun, Cortes & Burges 1998); for the options see :class:`IdxImages`.

    Example:
        >>> MNIST(augment={"shift": 2}).is_augmented
        True
    """

    folder = "mnist"
    # The mirror that torchvision uses; the original server often rejects downloads.
    url = "https://ossci-datasets.s3.amazonaws.com/mnist"
    sha256 = (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    )
    mean, std = 0.1307, 0.3081  # of the 60,000 training images, the values in common use; a test recomputes them


class FashionMNIST(IdxImages):
    """Images of clothes (Xiao, Rasul & Vollgraf 2017); for the options see :class:`IdxImages`.

    Example:
        >>> FashionMNIST(augment={"flip": True}).is_augmented
        True
    """

    folder = "fashion_mnist"
    # The authors' repository; the server that they name has no https.
    url = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
    sha256 = (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    )
    mean, std = 0.2860, 0.3530  # of the 60,000 training images; a test recomputes them
