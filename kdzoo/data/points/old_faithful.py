"""Eruptions of the Old Faithful geyser: 272 points in the plane."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdzoo.core.abilities import Scaling
from kdzoo.data.files.folders import find_root
from kdzoo.data.loading.shares import share, share_rows
from kdzoo.data.loading.split_data import DataSplits
from kdzoo.data.points.point_data import PointData, Points
from kdzoo.errors import DataError

_FOLDER, _FILE = "old_faithful", "OF.txt"
_ROWS = 272


class OldFaithful(PointData):
    """Duration of an eruption and waiting time to the next (Azzalini & Bowman 1990), as float32 [2].

    Both are in minutes, standardised by mean and deviation of all 272 rows. The density that they come from is not
    known, and there is no test part of their own: by default the test part is all rows, those of train too, so that
    a model is compared with the whole sample. With ``test_size`` it is rows that are not trained on.

    ``OF.txt`` (272 lines of number, duration, waiting time) is looked for in ``<root>/old_faithful`` and ``<root>``.
    Without ``root``, the roots are $KDZOO_DATA and ~/.cache/kdzoo.

    Args:
        root: folder of the data; None for the usual places.
        val_size: part of the rows for val, the same ones for every seed: a fraction in [0, 1) or a count; 0 for none.
        test_size: part of the rows for test, the same ones for every seed; 0 for all rows, of train and val too.
        batch_size: see :class:`kdzoo.data.loading.split_data.SplitDataModule`.
        options: see there.

    Raises:
        ConfigError: an option is out of range.
        DataError: the file is missing or damaged.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        val_size: float | int = 0,
        test_size: float | int = 0,
        batch_size: int = _ROWS,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.root = root
        self.val_size = share("val_size", val_size)
        self.test_size = share("test_size", test_size)

    @property
    def minutes(self) -> Scaling:
        """Mean and deviation of (duration, waiting time): a time in minutes is value * std + mean."""
        return {"mean": (3.48778309, 70.89705882), "std": (1.13927121, 13.56996002)}

    def load_splits(self) -> DataSplits[Points]:
        """Read the file and divide the rows."""
        path = find_root(self.root, _FOLDER, [_FILE]) / _FILE
        try:
            table = np.loadtxt(path, ndmin=2)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a table of numbers ({error})") from error
        if table.shape != (_ROWS, 3):
            raise DataError(f"{path} is a table {list(table.shape)}; allowed: [{_ROWS}, 3]")
        standardised = (table[:, 1:] - self.minutes["mean"]) / self.minutes["std"]
        every = Points(torch.from_numpy(standardised.astype(np.float32)))
        train, val, test = (every.select(rows) for rows in share_rows(_ROWS, self.val_size, self.test_size))
        return DataSplits(train, val, test if len(test) else every)
