"""Labelled arrays that the user provides, from memory or from two .npz files."""

from pathlib import Path
from typing import Any

from kdzoo.core.batch import IGNORE
from kdzoo.data.files.folders import read_npz
from kdzoo.data.loading.class_labels import checked_ignore_index
from kdzoo.data.memory import InMemoryData


class ArrayData(InMemoryData):
    """A data module of two pairs of arrays or tensors.

    Args:
        train: ``(inputs [n, ...], integer labels [n])``; inputs are cast to float32 and not scaled.
        test: The same for the test split.
        ignore_index: The label that stands for a missing one.
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: In ``setup``, if the arrays are not valid.

    Example:
        >>> import torch
        >>> x, y = torch.rand(20, 4), torch.arange(20) % 2
        >>> data = ArrayData((x, y), (x, y), batch_size=8)
        >>> data.setup()
        >>> data.sizes, data.summary()["n_train"]
        ({'in_shape': (4,), 'num_classes': 2}, 18)
    """

    def __init__(
        self, train: tuple[Any, Any], test: tuple[Any, Any], *, ignore_index: int = IGNORE, **options: Any
    ) -> None:
        super().__init__(**options)
        self.ignore_index = checked_ignore_index(ignore_index)
        self._arrays = train, test

    def load(self) -> tuple[Any, Any]:
        """Return the arrays of the constructor."""
        return self._arrays


class NpzData(InMemoryData):
    """A data module of two .npz files, each with an array of inputs and one of labels.

    Args:
        train_file: Path of the training file.
        test_file: Path of the test file.
        x_key: Name of the inputs ``[n, ...]`` in both files.
        y_key: Name of the integer labels ``[n]`` in both files.
        scale: Factor of the inputs; 1/255 brings pixels that are stored as bytes to [0, 1].
        ignore_index: The label that stands for a missing one.
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: In ``setup``, if a file or an array is missing or not valid.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        x_key: str = "x",
        y_key: str = "y",
        scale: float = 1.0,
        ignore_index: int = IGNORE,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = Path(train_file), Path(test_file)
        self.keys = x_key, y_key
        self.scale = scale
        self.ignore_index = checked_ignore_index(ignore_index)

    def load(self) -> tuple[Any, Any]:
        """Read both files."""
        train, test = (read_npz(file, self.keys) for file in self.files)
        return self._scaled(*train), self._scaled(*test)

    def _scaled(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        # A factor of 1 is skipped: multiplying would turn an array of bytes into float64, eight times its size.
        return (inputs if self.scale == 1 else inputs * self.scale), labels
