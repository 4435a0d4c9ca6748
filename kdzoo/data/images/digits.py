"""The 8 x 8 digits that are part of scikit-learn: real data without a download."""

from typing import Any

import numpy as np

from kdzoo.core.abilities import Scaling
from kdzoo.data.memory import InMemoryData

# A third of the samples. With 600 of them, the standard error of an accuracy of 0.9 is 1.2 points.
_TEST_SIZE = 600


class Digits(InMemoryData):
    """1,797 handwritten digits (Alpaydin & Kaynak 1998) as float32 ``[1, 8, 8]`` in [0, 1].

    A fixed stratified split gives 1,197 samples for train and val and 600 for test. By default only six digits of each
    class keep their labels: with all of them a small network is nearly as good as its teacher, and distillation has
    nothing to add.

    Args:
        batch_size: See :class:`kdzoo.data.memory.InMemoryData`.
        labels_per_class: See :class:`kdzoo.data.memory.InMemoryData`.
        options: See :class:`kdzoo.data.memory.InMemoryData`.

    Raises:
        ConfigError: If an option is out of range.

    Example:
        >>> data = Digits(val_size=100)
        >>> data.setup()
        >>> data.summary()
        {'n_train': 1097, 'n_labelled': 60, 'n_val': 100, 'n_test': 600, 'num_classes': 10}
    """

    def __init__(self, *, batch_size: int = 64, labels_per_class: int | None = 6, **options: Any) -> None:
        super().__init__(batch_size=batch_size, labels_per_class=labels_per_class, **options)

    @property
    def pixels(self) -> Scaling:
        """The scaling of pixels in 0..16 to [0, 1], stated as if they were pixels in 0..255."""
        return {"mean": (0.0,), "std": (16 / 255,)}

    def load(self) -> tuple[Any, Any]:
        """Load the digits from scikit-learn and divide them into train and test."""
        from sklearn.datasets import load_digits  # imported here, because it takes longer than all of kdzoo.data
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        # Each pixel counts the black cells of a 4 x 4 block, hence 0..16.
        images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        train_x, test_x, train_y, test_y = train_test_split(
            images, labels, test_size=_TEST_SIZE, random_state=0, stratify=labels
        )
        return (train_x, train_y), (test_x, test_y)
