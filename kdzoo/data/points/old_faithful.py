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
# Checked on reading: other versions of the data set have 299 rows or other units, and the scaling below is of this one.
_ROWS = 272


class OldFaithful(PointData):
    """Duration of an eruption and waiting time to the next (Azzalini & Bowman 1990), as float32 ``[2]``.

    Both are measured in minutes and standardised by mean and standard deviation of all 272 rows. The density that they
    come from is not known, and the authors define no test split. By default the test split is therefore all rows,
    those of train included, so that a model is compared with the full sample. With ``test_size`` it is rows that are
    not trained on.

    ``OF.txt`` (272 lines of number, duration, waiting time) is searched in ``<root>/old_faithful`` and ``<root>``.
    Without ``root``, the roots are ``$KDZOO_DATA`` and ``~/.cache/kdzoo``.

    Args:
        root: Folder of the data; None searches the default roots.
        val_size: Rows for val, the same ones for every seed: a fraction in [0, 1) or a count; 0 for none.
        test_size: Rows for test, the same ones for every seed; 0 for all rows, those of train and val included.
        batch_size: See :class:`kdzoo.data.loading.split_data.SplitDataModule`; all rows by default.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If the file is missing or damaged.

    References:
        Azzalini & Bowman 1990, "A look at some data on the Old Faithful geyser", Applied Statistics 39.
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
        """Mean and standard deviation of (duration, waiting time); a time in minutes is ``value * std + mean``."""
        # Computed once from the 272 rows of OF.txt (standard deviation with divisor n); a test checks them.
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
        # Column 0 is the number of the row. float64 until the end, so that means are 0 to within rounding of float32.
        standardised = (table[:, 1:] - self.minutes["mean"]) / self.minutes["std"]
        all_points = Points(torch.from_numpy(standardised.astype(np.float32)))
        train, val, test = (all_points.select(rows) for rows in share_rows(_ROWS, self.val_size, self.test_size))
        return DataSplits(train, val, test if len(test) else all_points)
