"""What transfer sets take from the data that they are made from."""

import pytest
import torch

from kdzoo.core.samplers import EpochBatches
from kdzoo.data import ArrayData
from kdzoo.data.derived.base import DerivedData


class Doubled(DerivedData):
    """The training samples of other data, times two."""

    def __init__(self, source):
        super().__init__(source)
        self.train_sampler = EpochBatches(8, 4, seed=0)

    def train_eval_dataloader(self):
        return [{**batch, "input": 2 * batch["input"]} for batch in self.source.train_eval_dataloader()]

    def fingerprint(self):
        return "doubled"


@pytest.fixture
def source():
    inputs, labels = torch.arange(20.0).reshape(10, 2), torch.arange(10) % 2
    data = ArrayData((inputs, labels), (inputs[:3], labels[:3]), val_size=2, batch_size=4)
    data.setup()
    return data


def test_val_test_sizes_and_summary_are_those_of_the_source(source):
    data = Doubled(source)
    data.setup()
    assert data.sizes == source.sizes
    assert data.summary() == source.summary()
    assert data.is_augmented
    for name in ("val_dataloader", "test_dataloader"):
        (batch,), (expected,) = getattr(data, name)(), getattr(source, name)()
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_setup_takes_the_share_of_the_process(source):
    class Trainer:
        global_rank, world_size = 1, 2

    data = Doubled(source)
    data.trainer = Trainer()
    data.setup()
    assert (data.train_sampler.rank, data.train_sampler.world_size) == (1, 2)
    assert [len(rows) for _, rows in data.train_sampler] == [2, 2]
