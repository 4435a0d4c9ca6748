import inspect
import math

import numpy as np
import pytest
import torch

from kdzoo.data import IGNORE, ArrayData, Digits
from kdzoo.errors import ConfigError, DataError


def arrays(n=100, classes=4, shape=(3,), start=0.0):
    """Inputs whose first number is the row, and labels 0, 1, ..., classes - 1, 0, 1, ..."""
    x = np.zeros((n, *shape), np.float32)
    x.reshape(n, math.prod(shape))[:, 0] = start + np.arange(n)
    return x, np.arange(n) % classes


def made(**options):
    data = ArrayData(arrays(), arrays(20, start=1000), **{"batch_size": 16, **options})
    data.setup()
    return data


def rows(loader):
    """The rows that a loader yields, in its order."""
    return [int(value) for batch in loader for value in batch["input"].flatten(1)[:, 0]]


def test_batches_have_the_documented_keys_and_types():
    data = made(labels_per_class=2)
    for loader in (data.train_dataloader(), data.train_eval_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert list(batch) == ["input", "target", "index"]
            assert batch["input"].dtype == torch.float32
            assert batch["input"].shape == (len(batch["index"]), 3)
            assert batch["target"].dtype == batch["index"].dtype == torch.int64
            assert batch["target"].shape == batch["index"].shape


def test_index_is_the_position_in_the_split():
    data = made(seed=3)
    train = data.splits.train
    for batch in data.train_dataloader():
        assert torch.equal(batch["input"], train.inputs[batch["index"]])
        assert torch.equal(batch["target"], train.targets[batch["index"]])
    for loader, n in ((data.train_eval_dataloader(), 90), (data.val_dataloader(), 10), (data.test_dataloader(), 20)):
        index = torch.cat([batch["index"] for batch in loader])
        assert index.tolist() == list(range(n))


def test_splits_are_disjoint_cover_all_and_do_not_depend_on_the_seed():
    first, second = made(seed=0, labels_per_class=2), made(seed=1, labels_per_class=2)
    train, val = rows(first.train_eval_dataloader()), rows(first.val_dataloader())
    assert sorted(train + val) == list(range(100))
    assert train == sorted(train)
    assert (len(train), len(val)) == (90, 10)
    assert rows(second.train_eval_dataloader()) == train
    assert rows(second.val_dataloader()) == val
    assert rows(first.test_dataloader()) == list(range(1000, 1020))
    assert rows(first.train_dataloader()) != rows(second.train_dataloader())
    assert not torch.equal(first.splits.train.targets, second.splits.train.targets)


@pytest.mark.parametrize(("val_size", "n_val"), [(0, 0), (0.0, 0), (7, 7), (0.25, 25), (0.001, 1)])
def test_val_size(val_size, n_val):
    data = made(val_size=val_size)
    assert data.summary()["n_val"] == n_val
    assert data.summary()["n_train"] == 100 - n_val
    if n_val == 0:
        assert data.val_dataloader() == []
        assert rows(data.train_eval_dataloader()) == list(range(100))


def test_train_sizes_are_nested_and_leave_val_alone():
    small, large = made(train_size=30), made(train_size=60)
    assert set(rows(small.train_eval_dataloader())) < set(rows(large.train_eval_dataloader()))
    assert rows(small.val_dataloader()) == rows(made().val_dataloader())


def test_exclude_classes_touches_the_train_split_only():
    data = made(exclude_classes=[1, 3], val_size=0.2)
    assert set(data.splits.train.targets.tolist()) == {0, 2}
    assert set(data.splits.val.targets.tolist()) == {0, 1, 2, 3}
    assert set(data.splits.test.targets.tolist()) == {0, 1, 2, 3}
    assert data.sizes["num_classes"] == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_label_budget(seed):
    data = made(labels_per_class=5, seed=seed, exclude_classes=[2])
    targets = data.splits.train.targets
    assert torch.bincount(targets[targets != IGNORE], minlength=4).tolist() == [5, 5, 0, 5]
    labelled = targets != IGNORE
    assert torch.equal(targets[labelled], (data.splits.train.inputs[labelled, 0] % 4).long())
    assert IGNORE not in data.splits.val.targets
    assert data.summary()["n_labelled"] == 15


def test_augmentation_repeats_with_any_number_of_workers():
    options = {"augment": {"shift": 2, "flip": True}, "batch_size": 7}
    pair = arrays(40, shape=(1, 6, 6)), arrays(4, shape=(1, 6, 6))
    runs = []
    for workers in (0, 2):
        data = ArrayData(*pair, num_workers=workers, **options)
        data.setup()
        data.train_sampler.set_position(7)
        runs.append(list(data.train_dataloader()))
    assert len(runs[0]) == len(data.train_sampler) - 1
    for first, second in zip(*runs, strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert data.is_augmented
    assert not made().is_augmented
    assert rows(data.train_eval_dataloader()) == [int(v) for v in data.splits.train.inputs[:, 0, 0, 0]]


def test_loaders_draw_nothing_from_the_global_random_numbers():
    data = made()
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.train_eval_dataloader()):
        list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_one_sampler_for_all_loaders_and_setups():
    data = made()
    sampler = data.train_sampler
    data.setup("fit")
    assert data.train_sampler is sampler
    assert data.train_dataloader().sampler is sampler
    assert data.train_dataloader().sampler is sampler


def test_ranks_come_from_the_trainer():
    class Trainer:
        global_rank, world_size = 1, 2

    data = made(val_size=0)
    all_batches = list(data.train_dataloader())
    data.trainer = Trainer()
    data.setup("fit")
    halves = list(data.train_dataloader())
    assert [len(batch["index"]) for batch in halves] == [8] * 6 + [2]
    assert torch.equal(halves[0]["index"], all_batches[0]["index"][8:])
    assert len(rows(data.test_dataloader())) == 20


def test_fingerprint_is_of_the_training_inputs():
    base = made().fingerprint()
    assert len(base) == 64
    assert made(seed=5, labels_per_class=1, augment=None, batch_size=3).fingerprint() == base
    assert made(train_size=50).fingerprint() != base
    x, y = arrays()
    x[50, 1] = 1
    other = ArrayData((x, y), arrays(20), batch_size=4, val_size=0)
    other.setup()
    assert other.fingerprint() != made(val_size=0).fingerprint()


def test_sizes_and_summary():
    data = ArrayData(arrays(shape=(2, 5, 6)), arrays(10, shape=(2, 5, 6)), num_classes=7, batch_size=8)
    data.setup()
    assert data.sizes == {"in_shape": (2, 5, 6), "num_classes": 7}
    assert data.summary() == {"n_train": 90, "n_labelled": 90, "n_val": 10, "n_test": 10, "num_classes": 7}


def test_tensors_integers_and_read_only_arrays_are_accepted():
    x, y = arrays()
    x.flags.writeable = False
    data = ArrayData((x, y), (torch.ones(3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int32)), batch_size=4)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["input"].dtype == torch.float32
    assert batch["target"].dtype == torch.int64


def test_access_before_setup_says_what_to_call():
    with pytest.raises(RuntimeError, match=r"call ArrayData.setup\(\) first"):
        ArrayData(arrays(), arrays()).sizes  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer"),
        ({"batch_size": 512}, "batch_size=512 is larger than the 90 training samples; allowed: 1..90"),
        ({"val_size": 1.0}, "val_size=1.0 is not allowed; allowed: a fraction in [0, 1) or a count"),
        ({"val_size": -1}, "val_size must be an integer"),
        ({"val_size": True}, "val_size must be an integer"),
        ({"val_size": float("nan")}, "val_size=nan is not allowed"),
        ({"val_size": 100}, "val_size=100 takes 100 of 100 samples; allowed: at most 99"),
        ({"train_size": 91}, "train_size=91 is more than the 90 training samples; allowed: 1..90"),
        ({"train_size": 0}, "train_size must be an integer"),
        ({"labels_per_class": 0}, "labels_per_class must be an integer"),
        ({"labels_per_class": 60}, "labels_per_class=60 is more than the"),
        ({"exclude_classes": [4]}, "exclude_classes must be an integer in 0..3, got 4"),
        ({"exclude_classes": 1}, "exclude_classes=1 is not allowed; allowed: a list of classes"),
        ({"exclude_classes": [0, 1, 2, 3]}, "leaves no training sample"),
        ({"num_classes": 0}, "num_classes must be an integer"),
        ({"eval_batch_size": 0}, "eval_batch_size must be an integer"),
        ({"num_workers": -1}, "num_workers must be an integer"),
        ({"seed": -1}, "seed must be an integer"),
        ({"augment": {"flip": True}}, "needs images"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        made(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def with_value(row, value):
    x, y = arrays()
    x[row, 2] = value
    return x, y


def few_labels():
    """The first label of each of the four classes, none of which is in a val split of five samples."""
    inputs, targets = GOOD
    hidden = np.full_like(targets, IGNORE)
    hidden[:4] = targets[:4]
    return inputs, hidden


def with_label(row, label):
    x, y = arrays()
    y[row] = label
    return x, y


GOOD = arrays()


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        (arrays(0), GOOD, {}, "train split is empty"),
        (GOOD, arrays(0), {}, "test split is empty"),
        ((GOOD[0], GOOD[1][:-1]), GOOD, {}, "train has 100 inputs but 99 labels; allowed: equal numbers"),
        (GOOD, with_label(7, 4), {}, "test label 4 at index 7 is out of range; allowed: 0..3"),
        (with_label(9, -1), GOOD, {}, "train label -1 at index 9 is out of range; allowed: 0..3, or -100"),
        ((GOOD[0], GOOD[1] + 1), GOOD, {}, "no sample has the label 0; do they begin at 1?"),
        (GOOD, (GOOD[0], GOOD[1] * 0 + IGNORE), {}, "the test split has no labels"),
        (
            few_labels(),
            GOOD,
            {"val_size": 5},
            "the val split has no labels",
        ),
        (GOOD, GOOD, {"num_classes": 3}, "train label 3 at index 3 is out of range; allowed: 0..2"),
        ((GOOD[0], GOOD[1].astype(float)), GOOD, {}, "train labels must be integers [n], got torch.float64 [100]"),
        ((GOOD[0], GOOD[1][:, None]), GOOD, {}, "train labels must be integers [n], got torch.int64 [100, 1]"),
        (with_value(31, np.nan), GOOD, {}, "train input at index 31 holds NaN or infinity"),
        (GOOD, with_value(5, np.inf), {}, "test input at index 5 holds NaN or infinity"),
        (GOOD, arrays(shape=(4,)), {}, "test inputs have the shape [4]; allowed: [3], as in train"),
        ((GOOD[0].astype(object), GOOD[1]), GOOD, {}, "train inputs must be an array of numbers, got object"),
        ((GOOD[0].astype(complex), GOOD[1]), GOOD, {}, "train inputs must be an array of real numbers"),
        ((GOOD[0][:, 0], GOOD[1]), GOOD, {}, "train inputs must be [n, ...] with n samples, got [100]"),
        (GOOD[0], GOOD, {}, "train must be a pair (inputs, labels), got ndarray"),
        ((GOOD[0],), GOOD, {}, "train must be a pair (inputs, labels), got tuple of 1"),
    ],
)
def test_bad_data(train, test, options, message):
    data = ArrayData(train, test, batch_size=8, **options)
    with pytest.raises(DataError) as caught:
        data.setup()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_replaced_sampler_is_reported():
    dataset = made().train_dataloader().dataset
    assert len(dataset) == 90
    with pytest.raises(ConfigError, match=r"Trainer\(use_distributed_sampler=False\)"):
        dataset[0]


def test_a_shortened_split_keeps_the_few_labels():
    data = Digits(labels_per_class=6)
    data.max_samples = 200
    data.setup()
    assert data.summary() == {"n_train": 200, "n_labelled": 60, "n_val": 120, "n_test": 200, "num_classes": 10}


def test_the_signature_lists_the_options_of_the_base_classes():
    names = list(inspect.signature(Digits).parameters)
    assert names[:2] == ["batch_size", "labels_per_class"]
    assert {"val_size", "augment", "num_workers"} <= set(names)
    assert "options" not in names
