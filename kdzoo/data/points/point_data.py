"""The base of data modules of unlabelled points."""

from typing import Any

from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.data.loading.split_data import DataSplit, SplitDataModule
from kdzoo.data.loading.tensors import check_finite


class Points(DataSplit):
    """A split of points that are held in memory as one tensor.

    Args:
        inputs: float32 ``[n, ...]``, finite.

    Raises:
        DataError: If a point is not finite.
    """

    def __init__(self, inputs: Tensor) -> None:
        # Here and not in load_splits, so that a subclass cannot forget it.
        check_finite(inputs, "point")
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, rows: Tensor) -> "Points":
        """Return the points at ``rows`` (int64 ``[m]``), in this order."""
        return Points(self.inputs[rows])

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` ``[b, ...]``; there is no ``target``."""
        return {"input": self.inputs.index_select(0, index)}

    def content(self) -> list[Tensor]:
        """Return the points."""
        return [self.inputs]


class PointData(SplitDataModule[Points]):
    """A data module of unlabelled points; a subclass writes ``load_splits()`` and nothing else."""

    @property
    def sizes(self) -> dict[str, Any]:
        """``in_shape`` (tuple, without the batch)."""
        return {"in_shape": tuple(self.splits.train.inputs.shape[1:])}
