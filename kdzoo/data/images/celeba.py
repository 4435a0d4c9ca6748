"""CelebA: faces and their attributes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import integer
from kdzoo.data.files.folders import find_root
from kdzoo.data.images.image_files import Pictures, decoded_pictures
from kdzoo.data.loading.split_data import DataSplits, SplitDataModule
from kdzoo.data.loading.tensors import UNSCALED
from kdzoo.errors import ConfigError, DataError

_FOLDER = "celeba"
_IMAGES, _ATTRIBUTES, _PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"


class CelebA(SplitDataModule[Pictures]):
    """202,599 aligned faces (Liu et al. 2015) as float32 [3, size, size] in [0, 1], with one attribute as label.

    A label is 1 where the attribute is there and 0 where it is not. The parts are those of the official partition.
    Every picture, 178 x 218, is resized without cropping. The decoded bytes are kept in ~/.cache/kdzoo/celeba (2.5 GB
    for size 64), from which batches are made, so that memory holds only what the system sees fit; the first use of a
    size decodes all pictures, which takes minutes.

    The folder ``img_align_celeba`` and the files ``list_attr_celeba.txt`` and ``list_eval_partition.txt`` are looked
    for in ``<root>/celeba`` and ``<root>``. Without ``root``, the roots are $KDZOO_DATA and ~/.cache/kdzoo. The files
    may be had from their owners only, so nothing is downloaded.

    Args:
        root: folder of the data; None for the usual places.
        size: height and width of the resized pictures, >= 1.
        attribute: name of the binary attribute that is the label, one of 40.
        options: see :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: an option is out of range.
        DataError: a file is missing or damaged.
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
        """Return mean and deviation of the channels: a value is pixel / 255."""
        return UNSCALED

    def prepare_data(self) -> None:
        """Decode the pictures when that has not been done."""
        folder = self._folder()
        self._decoded(folder, list(read_partition(folder / _PARTITION)))

    def load_splits(self) -> DataSplits[Pictures]:
        """Read the lists and divide the pictures."""
        folder = self._folder()
        partition = read_partition(folder / _PARTITION)
        labels = read_attribute(folder / _ATTRIBUTES, self.attribute)
        missing = next((name for name in partition if name not in labels), None)
        if missing is not None:
            raise DataError(f"{folder / _ATTRIBUTES} has no attributes of {missing}; allowed: all of {_PARTITION}")
        pixels = self._decoded(folder, list(partition))
        part, targets = torch.tensor(list(partition.values())), torch.tensor([labels[name] for name in partition])

        def pictures(number: int) -> Pictures:
            rows: Tensor = (part == number).nonzero()[:, 0]
            return Pictures(pixels, rows, targets[rows])

        return DataSplits(pictures(0), pictures(1), pictures(2))

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
        return decoded_pictures(folder / _IMAGES, names, name=_FOLDER, size=self.size)


def read_partition(path: Path) -> dict[str, int]:
    """Return the part of each picture, 0 for train, 1 for val and 2 for test, from lines of name and part.

    Raises:
        DataError: the file is missing, or a line is something else.
    """
    parts = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number} is {line!r}; allowed: a name and 0, 1 or 2")
        parts[words[0]] = int(words[1])
    return parts


def read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """Return one attribute of each picture, 1 or 0, from a file with 1 or -1.

    The first line is the number of pictures, the second the names of the attributes; the others are a picture's name
    and its values.

    Raises:
        ConfigError: there is no such attribute.
        DataError: the file is missing, or a line is something else.
    """
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    if attribute not in names:
        raise ConfigError(f"attribute={attribute!r} is not allowed; allowed: {', '.join(names) or 'none in the file'}")
    column, labels = names.index(attribute) + 1, {}
    for number, line in enumerate(lines[2:], 3):
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
