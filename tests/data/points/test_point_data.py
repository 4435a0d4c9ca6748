"""Points held in memory, without labels."""

import pytest
import torch

from kdzoo.data import DataSplits, PointData, Points
from kdzoo.errors import DataError


class Grid(PointData):
    """Points [2, 3] whose numbers count up."""

    def load_splits(self):
        points = Points(torch.arange(60.0).reshape(10, 2, 3))
        return DataSplits(points, points.select(torch.arange(0)), points.select(torch.tensor([9, 1])))


def test_shape_and_batches():
    data = Grid(batch_size=4)
    data.setup()
    assert data.sizes == {"in_shape": (2, 3)}
    (batch,) = data.test_dataloader()
    assert list(batch) == ["input", "index"]
    assert batch["input"][:, 0, 0].tolist() == [54, 6]
    assert data.val_dataloader() == []


def test_a_split_selects_batches_and_lists_its_points():
    points = Points(torch.arange(6.0).reshape(3, 2))
    assert len(points) == 3
    assert points.batch(torch.tensor([2, 0]))["input"].tolist() == [[4, 5], [0, 1]]
    assert points.select(torch.tensor([1])).inputs.tolist() == [[2, 3]]
    assert points.content() == [points.inputs]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_points_are_finite(value):
    with pytest.raises(DataError, match=r"^point input at index 1 holds NaN or infinity; allowed: finite numbers$"):
        Points(torch.tensor([[0.0], [value], [value]]))
