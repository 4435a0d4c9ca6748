import random
import re

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from kdzoo.data import AdaptedData, ArrayData
from kdzoo.errors import ConfigError, DataError

N = 23


class Noisy(Dataset):
    """Samples with noise from all three global generators, as transforms draw it."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        return torch.tensor([float(row), noise]), row % 3


class Module(pl.LightningDataModule):
    """What a user might have written."""

    def __init__(self, workers=0, dataset=None):
        super().__init__()
        self.workers = workers
        self.given = dataset
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare")

    def setup(self, stage):
        self.calls.append(stage)
        if stage == "fit":
            self.train_set = self.given or Noisy()
            self.val_set = TensorDataset(torch.rand(7, 2), torch.arange(7) % 3)
        if stage == "test":
            self.test_set = TensorDataset(torch.rand(5, 2), torch.arange(5) % 3)

    def teardown(self, stage):
        self.calls.append(f"teardown {stage}")

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=4, shuffle=True, num_workers=self.workers)

    def val_dataloader(self):
        return [DataLoader(self.val_set, batch_size=3)]

    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=3)


def adapted(source=None, **options):
    data = AdaptedData(source or Module(), **options)
    data.prepare_data()
    data.setup()
    return data


def epochs(data, numbers):
    batches = []
    for epoch in numbers:
        data.train_sampler.set_epoch(epoch)
        batches += list(data.train_dataloader())
    return batches


def assert_same(first, second):
    assert len(first) == len(second)
    for batch, other in zip(first, second, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[key], other[key]) for key in batch)


def test_batches_have_the_documented_keys_and_cover_the_data():
    data = adapted()
    batches = epochs(data, [0])
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(N))
    for batch in batches:
        assert batch["input"].dtype == torch.float32
        assert batch["target"].dtype == batch["index"].dtype == torch.int64
        assert torch.equal(batch["input"][:, 0].long(), batch["index"])
        assert torch.equal(batch["target"], batch["index"] % 3)


def test_two_workers_equal_none():
    assert_same(epochs(adapted(Module(workers=2)), [0, 1]), epochs(adapted(), [0, 1]))


def test_resume_equals_the_tail_for_every_position():
    uninterrupted = epochs(adapted(), [0, 1])
    for done in range(len(uninterrupted)):
        data = adapted()
        data.train_sampler.set_position(done)
        first = data.train_sampler.epoch
        seen = list(data.train_dataloader()) + epochs(data, range(first + 1, 2))
        assert_same(seen, uninterrupted[done:])


def test_noise_differs_between_epochs_and_seeds_and_leaves_the_global_state():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = torch.rand(()).item(), np.random.rand(), random.random()
    data, reseeded = adapted(), adapted(seed=1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    noise = [data._dataset[epoch, torch.tensor([5])]["input"][0, 1].item() for epoch in (0, 1)]
    other = reseeded._dataset[0, torch.tensor([5])]["input"][0, 1].item()
    assert len({*noise, other}) == 3
    assert (torch.rand(()).item(), np.random.rand(), random.random()) == expected
    assert data.is_augmented


def test_sizes_summary_and_fingerprint():
    data = adapted()
    assert data.sizes == {"in_shape": (2,), "num_classes": 3}
    assert data.summary() == {"n_train": N, "n_labelled": N, "n_val": 7, "n_test": 5, "num_classes": 3}
    assert data.fingerprint() == adapted().fingerprint()
    source = Module()
    source.num_classes, source.is_augmented = 11, False
    declaring = adapted(source)
    assert declaring.sizes["num_classes"] == 11
    assert not declaring.is_augmented


def test_fingerprint_equals_that_of_the_same_arrays():
    x, y = torch.rand(10, 3), torch.arange(10) % 2
    own = ArrayData((x, y), (x, y), val_size=0, batch_size=4)
    own.setup()
    pair = DataLoader(TensorDataset(x, y), batch_size=4), DataLoader(TensorDataset(x, y))
    assert adapted(pair, eval_batch_size=3).fingerprint() == own.fingerprint()


def test_val_and_test_loaders_are_converted():
    data = adapted()
    (val,) = data.val_dataloader()
    assert [len(batch["index"]) for batch in val] == [3, 3, 1]
    assert len(val) == 3
    assert torch.cat([batch["index"] for batch in val]).tolist() == list(range(7))
    assert sum(len(batch["input"]) for batch in data.test_dataloader()) == 5


def test_stages_are_passed_on_once_and_again_after_teardown():
    data = AdaptedData(Module())
    data.prepare_data()
    data.setup("fit")
    data.setup("fit")
    data.test_dataloader()
    data.teardown("fit")
    data.setup("fit")
    assert data.source.calls == ["prepare", "fit", "test", "teardown fit", "fit"]


def test_pair_of_loaders_without_shuffle():
    samples = TensorDataset(torch.rand(6, 2), torch.arange(6))
    data = adapted((DataLoader(samples, batch_size=4), DataLoader(samples)))
    assert [batch["index"].tolist() for batch in epochs(data, [0, 1])] == [[0, 1, 2, 3], [4, 5]] * 2
    assert data.val_dataloader() == []


def test_under_a_trainer():
    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 3)
            self.seen = []

        def training_step(self, batch, _):
            self.seen += batch["index"].tolist()
            return torch.nn.functional.cross_entropy(self.layer(batch["input"]), batch["target"])

        def validation_step(self, batch, _):
            assert set(batch) == {"input", "target", "index"}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Model()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", enable_model_summary=False, use_distributed_sampler=False, **quiet
    )
    trainer.fit(model, datamodule=AdaptedData(Module()))
    assert sorted(model.seen) == sorted(list(range(N)) * 2)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), 0


SAMPLES = TensorDataset(torch.rand(6, 2), torch.arange(6))


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(Stream(), batch_size=2), "the train data set Stream is an IterableDataset"),
        (
            DataLoader(SAMPLES, batch_sampler=type("Mine", (BatchSampler,), {})(SequentialSampler(SAMPLES), 2, False)),
            "the train loader's batch_sampler is Mine",
        ),
        (DataLoader(SAMPLES, batch_size=None), "batch_sampler is absent (batch_size=None)"),
        (
            DataLoader(SAMPLES, sampler=WeightedRandomSampler([1.0] * 6, 6)),
            "the train loader's sampler WeightedRandomSampler cannot be replayed",
        ),
        (DataLoader(TensorDataset(torch.rand(0, 2))), "the train data set is empty"),
        ([1, 2], "the train loader is list; allowed: one torch DataLoader"),
    ],
)
def test_loaders_that_cannot_be_replayed(loader, message):
    data = AdaptedData((loader, DataLoader(SAMPLES)))
    with pytest.raises(DataError) as caught:
        data.setup()
    assert message in str(caught.value)


def test_bad_sources_and_options():
    with pytest.raises(DataError, match="source is int; allowed: a LightningDataModule or"):
        AdaptedData(3)
    with pytest.raises(ConfigError, match="seed must be an integer >= 0, got -1"):
        AdaptedData(Module(), seed=-1)

    class Hooked(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    with pytest.raises(DataError, match=r"Hooked.on_after_batch_transfer would be skipped"):
        AdaptedData(Hooked())
    with pytest.raises(DataError, match="the training data have no labels"):
        adapted(Module(dataset=TensorDataset(torch.rand(8, 2)))).sizes  # noqa: B018
    with pytest.raises(RuntimeError, match=r"call AdaptedData.setup"):
        AdaptedData(Module()).sizes  # noqa: B018


def labelled(*labels):
    return TensorDataset(torch.rand(len(labels), 2), torch.tensor(labels))


class Partly(Module):
    """Labels of 0..2, and 255 where there is none."""

    ignore_index = 255


@pytest.mark.parametrize("option", [False, True])
def test_the_label_that_stands_for_a_missing_one_is_an_option_or_declared_by_the_source(option):
    samples = labelled(0, 255, 1, 2, 255)
    data = adapted(Module(dataset=samples), ignore_index=255) if option else adapted(Partly(dataset=samples))
    assert data.sizes["num_classes"] == 3
    assert data.summary()["n_labelled"] == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((0, 1, 2, 255), "set data.ignore_index=255 if 255 stands for a missing label"),
        ((1, 2, 3), "no sample has the label 0; do they begin at 1?"),
        ((0, 1, -1), "train label -1 at index 2 is out of range; allowed: 0..1, or -100 for a missing label"),
        ((0, 1, 1), "val label 2 at index 2 is out of range; allowed: 0..1"),
    ],
)
def test_labels_of_every_split_are_checked_when_the_classes_are_counted(labels, message):
    with pytest.raises(DataError, match=re.escape(message)):
        adapted(Module(dataset=labelled(*labels))).sizes  # noqa: B018


def test_a_split_without_labels_is_refused():
    class Unlabelled(Module):
        def val_dataloader(self):
            return DataLoader(TensorDataset(torch.rand(3, 2), torch.full((3,), -100)))

    with pytest.raises(DataError, match="the val split has no labels"):
        adapted(Unlabelled(dataset=labelled(0, 1, 2))).sizes  # noqa: B018


def test_a_trial_run_on_the_first_samples_may_lack_classes():
    data = AdaptedData(Module(dataset=labelled(*[0] * 9, 1, 2)))
    data.max_samples = 4
    data.setup()
    assert data.sizes["num_classes"] == 3


@pytest.mark.parametrize(("max_samples", "lengths"), [(2, (4, 3, 3)), (6, (6, 6, 5)), (99, (23, 7, 5))])
def test_max_samples_shortens_every_split_to_whole_evaluation_batches(max_samples, lengths):
    data = AdaptedData(Module(), seed=0)
    data.max_samples = max_samples
    data.setup()
    summary = data.summary()
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == lengths
    assert sum(len(batch["input"]) for batch in data.train_eval_dataloader()) == lengths[0]
    assert len(list(data.val_dataloader())) == len(data.val_dataloader())
    data = AdaptedData(Module(), seed=0)
    data.max_batch_size = 3
    data.setup()
    assert [len(batch["input"]) for batch in data.train_dataloader()] == [3] * 7 + [2]
