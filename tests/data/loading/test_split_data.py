"""What all data modules of three splits have in common: order, resume, selection, shares of processes, checks."""

import pytest
import torch

from kdzoo.data import ArrayData, DataSplits, PointData, Points
from kdzoo.errors import ConfigError, DataError


class Counted(PointData):
    """Points whose first number is their row."""

    def __init__(self, sizes=(50, 6, 8), **options):
        super().__init__(**{"batch_size": 8, **options})
        self.lengths = sizes

    def load_splits(self):
        starts = (0, 1000, 2000)
        columns = [start + torch.arange(n).float() for start, n in zip(starts, self.lengths, strict=True)]
        return DataSplits(*(Points(torch.stack([one, -one], 1)) for one in columns))


def ready(data):
    data.setup()
    return data


def rows(loader):
    return [int(value) for batch in loader for value in batch["input"][:, 0]]


def test_batches_have_no_target_and_index_is_the_position():
    data = ready(Counted(train_size=30, seed=2))
    for loader, split in [
        (data.train_dataloader(), data.splits.train),
        (data.train_eval_dataloader(), data.splits.train),
        (data.val_dataloader(), data.splits.val),
        (data.test_dataloader(), data.splits.test),
    ]:
        for batch in loader:
            assert list(batch) == ["input", "index"]
            assert (batch["input"].dtype, batch["index"].dtype) == (torch.float32, torch.int64)
            assert torch.equal(batch["input"], split.inputs[batch["index"]])
    assert rows(data.val_dataloader()) == list(range(1000, 1006))
    assert rows(data.test_dataloader()) == list(range(2000, 2008))
    assert data.summary() == {"n_train": 30, "n_labelled": 0, "n_val": 6, "n_test": 8, "num_classes": 0}
    assert data.sizes == {"in_shape": (2,)}
    assert not data.is_augmented


def test_every_epoch_has_all_samples_in_a_different_order():
    data = ready(Counted(seed=1))
    orders = []
    for epoch in (0, 1):
        data.train_sampler.set_epoch(epoch)
        orders.append(rows(data.train_dataloader()))
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != list(range(50))
    assert rows(ready(Counted(seed=1)).train_dataloader()) == orders[0]
    assert rows(ready(Counted(seed=2)).train_dataloader()) != orders[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_at_any_batch(workers):
    data = ready(Counted())
    data.train_sampler.set_epoch(1)
    uninterrupted = rows(data.train_dataloader())
    again = ready(Counted(num_workers=workers))
    again.train_sampler.set_position(7 + 3)
    assert rows(again.train_dataloader()) == uninterrupted[3 * 8 :]


def test_loaders_draw_nothing_from_the_global_random_numbers():
    data = ready(Counted())
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.train_eval_dataloader()):
        list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_train_sizes_are_nested_and_the_same_for_every_seed():
    small, large = (rows(ready(Counted(train_size=n)).train_eval_dataloader()) for n in (20, 40))
    assert (len(small), len(large)) == (20, 40)
    assert set(small) < set(large)
    assert rows(ready(Counted(train_size=20, seed=5)).train_eval_dataloader()) == small == sorted(small)


def test_ranks_come_from_the_trainer_and_setup_loads_once():
    class Trainer:
        global_rank, world_size = 1, 2

    data = ready(Counted())
    train, all_rows = data.splits.train, rows(data.train_dataloader())
    data.trainer = Trainer()
    data.setup("fit")
    assert data.splits.train is train
    assert rows(data.train_dataloader())[:4] == all_rows[4:8]
    assert rows(data.test_dataloader()) == list(range(2000, 2008))


def test_fingerprint_is_that_of_the_same_inputs_with_labels():
    data = ready(Counted())
    pair = data.splits.train.inputs, torch.zeros(50, dtype=torch.int64)
    assert data.fingerprint() == ready(ArrayData(pair, pair, val_size=0, batch_size=4)).fingerprint()
    assert data.fingerprint() == ready(Counted(seed=3, batch_size=5)).fingerprint()
    assert data.fingerprint() != ready(Counted(train_size=49)).fingerprint()


def test_val_may_be_empty_and_the_others_may_not():
    assert ready(Counted((50, 0, 8))).val_dataloader() == []
    for sizes, name in [((0, 1, 8), "train"), ((50, 1, 0), "test")]:
        with pytest.raises(DataError, match=f"the {name} split is empty; allowed: at least 1 sample"):
            Counted(sizes).setup()
    with pytest.raises(DataError, match="point input at index 1 holds NaN"):
        Points(torch.tensor([[0.0], [torch.nan]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 51}, "batch_size=51 is larger than the 50 training samples; allowed: 1..50"),
        ({"batch_size": 21, "train_size": 20}, "batch_size=21 is larger than the 20 training samples"),
        ({"train_size": 0}, "train_size must be an integer >= 1, got 0"),
        ({"train_size": 51}, "train_size=51 is more than the 50 training samples; allowed: 1..50"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"eval_batch_size": 0}, "eval_batch_size must be an integer >= 1, got 0"),
        ({"num_workers": -1}, "num_workers must be an integer >= 0, got -1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "message",
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        Counted(**options).setup()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_access_before_setup_and_a_replaced_sampler_are_reported():
    with pytest.raises(RuntimeError, match=r"call Counted.setup\(\) first"):
        Counted().sizes  # noqa: B018
    dataset = ready(Counted()).train_dataloader().dataset
    assert len(dataset) == 50
    with pytest.raises(ConfigError, match=r"Trainer\(use_distributed_sampler=False\)"):
        dataset[0]


@pytest.mark.parametrize(
    ("max_samples", "lengths"), [(3, (8, 3, 3)), (7, (8, 6, 7)), (20, (20, 6, 8)), (99, (50, 6, 8))]
)
def test_max_samples_shortens_every_split_but_keeps_a_training_batch(max_samples, lengths):
    data = Counted(batch_size=8)
    data.max_samples = max_samples
    data.setup()
    summary = data.summary()
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == lengths
    kept = rows(data.test_dataloader())
    assert kept == sorted(kept)
    assert set(kept) <= set(range(2000, 2008))
    data = Counted(batch_size=8)
    data.max_batch_size = 5
    assert len(next(iter(ready(data).train_dataloader()))["index"]) == 5
    assert len(next(iter(data.test_dataloader()))["index"]) == 5
    other = Counted(batch_size=8, seed=9)
    other.max_samples = max_samples
    assert rows(ready(other).test_dataloader()) == kept
