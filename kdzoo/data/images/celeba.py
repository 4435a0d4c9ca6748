"""CelebA, a data set of faces with binary attributes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import integer
from kdzoo.data.files.folders import find_root
from kdzoo.data.images.image_files import LabelledImages, decoded_images
from kdzoo.data.loading.split_data import DataSplits, SplitDataModule
from kdzoo.data.loading.tensors import UNSCALED
from kdzoo.errors import ConfigError, DataError

_FOLDER = "celeba"
# Names in the official distribution.
_IMAGES, _ATTRIBUTES, _PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"


class CelebA(SplitDataModule[LabelledImages]):
    """202,599 aligned faces (Liu et al. 2015) as float32 ``[3, size, size]`` in [0, 1]; one attribute is the label.

    A label is 1 if the face has the attribute and 0 if not. The splits are those of the official partition. Every
    image of 178 x 218 pixels is resized without cropping. The first use of a size decodes all images, which takes
    minutes, and stores the pixels in ``~/.cache/kdzoo/celeba`` (2.5 GB for size 64). Batches are read from that file,
    which is mapped into memory, so that the operating system decides how much of it is in memory at a time.

    The folder ``img_align_celeba`` and the files ``list_attr_celeba.txt`` and ``list_eval_partition.txt`` are searched
    in ``<root>/celeba`` and ``<root>``. Without ``root``, the roots are ``$KDZOO_DATA`` and ``~/.cache/kdzoo``. Nothing
    is downloaded, because only the owners of the data set may distribute it.

    Args:
        root: Folder of the data; None searches the default roots.
        size: Height and width of the resized images, >= 1.
        attribute: Name of the binary attribute that is the label, one of 40.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If a file is missing or damaged.
    """

    def __init__(
        self, *, root: str | Path | None = None, size: int = 64, attribute: str = "Eyeglasses", **options: Any
    ) -> None:
        super().__init__(**options)
        self.root = root
        self.size = integer("size", size, 1)
        self.attribute = attribute

    @property
    def pixels(self) -> Scaling:
        """Mean 0 and standard deviation 1 of each channel: a value is ``pixel / 255``."""
        return UNSCALED

    def prepare_data(self) -> None:
        """Decode the images unless that has been done."""
        folder = self._folder()
        self._decoded(folder, list(read_partition(folder / _PARTITION)))

    def load_splits(self) -> DataSplits[LabelledImages]:
        """Read the lists and divide the images."""
        folder = self._folder()
        partition = read_partition(folder / _PARTITION)
        labels = read_attribute(folder / _ATTRIBUTES, self.attribute)
        # Checked here, because a KeyError in the comprehension below would not say which file is wrong.
        missing = next((name for name in partition if name not in labels), None)
        if missing is not None:
            raise DataError(f"{folder / _ATTRIBUTES} has no attributes of {missing}; allowed: all of {_PARTITION}")
        pixels = self._decoded(folder, list(partition))
        split_numbers = torch.tensor(list(partition.values()))
        targets = torch.tensor([labels[name] for name in partition])

        def split(number: int) -> LabelledImages:
            rows: Tensor = (split_numbers == number).nonzero()[:, 0]
            return LabelledImages(pixels, rows, targets[rows])

        return DataSplits(split(0), split(1), split(2))

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape`` (3, size, size) and ``num_classes`` 2."""
        return {"in_shape": (3, self.size, self.size), "num_classes": 2}

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        return {**super().summary(), "n_labelled": len(self.splits.train), "num_classes": 2}

    def _folder(self) -> Path:
        return find_root(self.root, _FOLDER, [_ATTRIBUTES, _PARTITION])

    def _decoded(self, folder: Path, names: list[str]) -> Any:
        return decoded_images(folder / _IMAGES, names, name=_FOLDER, size=self.size)


def read_partition(path: Path) -> dict[str, int]:
    """Return the split of each image, 0 for train, 1 for val and 2 for test, from lines of name and number.

    Raises:
        DataError: If the file is missing, or a line is something else.
    """
    partition = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number} is {line!r}; allowed: a name and 0, 1 or 2")
        partition[words[0]] = int(words[1])
    return partition


def read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """Return one attribute of each image, 1 or 0, from a file with 1 or -1.

    The first line of the file is the number of images, the second the names of the attributes; every other line is the
    name of an image and the values of its attributes.

    Raises:
        ConfigError: If there is no such attribute.
        DataError: If the file is missing, or a line is something else.
    """
    lines = _lines(path)
    # The names are those of the file and not a fixed list, so that files with fewer attributes work too.
    names = lines[1].split() if len(lines) > 1 else []
    if attribute not in names:
        raise ConfigError(f"attribute={attribute!r} is not allowed; allowed: {', '.join(names) or 'none in the file'}")
    column, labels = names.index(attribute) + 1, {}
    for number, line in enumerate(lines[2:], 3):  # line numbers as an editor shows them
        words = line.split()
        if len(words) != len(names) + 1 or words[column] not in ("1", "-1"):
            raise DataError(f"{path}, line {number} is {line[:60]!r}; allowed: a name and {len(names)} times 1 or -1")
        labels[words[0]] = int(words[column] == "1")
    return labels


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error
