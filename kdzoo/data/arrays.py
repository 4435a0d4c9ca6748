"""A user's own arrays: from memory, or from two .npz files."""

from pathlib import Path
from typing import Any

from kdzoo.data.files.folders import read_npz
from kdzoo.data.memory import InMemoryData


class ArrayData(InMemoryData):
    """Two pairs of arrays or tensors as a data module.

    Args:
        train: (inputs [n, ...], integer labels [n]); inputs are cast to float32 and not scaled.
        test: the same for the test split.
        options: see :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: in ``setup``, the arrays are unfit.

    Example:
        >>> import torch
        >>> x, y = torch.rand(20, 4), torch.arange(20) % 2
        >>> data = ArrayData((x, y), (x, y), batch_size=8)
        >>> data.setup()
        >>> data.sizes, data.summary()["n_train"]
        ({'in_shape': (4,), 'num_classes': 2}, 18)
    """

    def __init__(self, train: tuple[Any, Any], test: tuple[Any, Any], **options: Any) -> None:
        super().__init__(**options)
        self._arrays = train, test

    def load(self) -> tuple[Any, Any]:
        """Return the arrays that were given."""
        return self._arrays


class NpzData(InMemoryData):
    """Two .npz files, each with an array of inputs and one of labels.

    Args:
        train_file: path of the training file.
        test_file: path of the test file.
        x_key: name of the inputs [n, ...] in both files.
        y_key: name of the integer labels [n] in both files.
        scale: inputs are multiplied by this number, 1/255 for bytes of pixels.
        options: see :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: in ``setup``, a file or an array is missing or unfit.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        x_key: str = "x",
        y_key: str = "y",
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = Path(train_file), Path(test_file)
        self.keys = x_key, y_key
        self.scale = scale

    def load(self) -> tuple[Any, Any]:
        """Read both files."""
        train, test = (read_npz(file, self.keys) for file in self.files)
        return self._scaled(*train), self._scaled(*test)

    def _scaled(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        return (inputs if self.scale == 1 else inputs * self.scale), labels
