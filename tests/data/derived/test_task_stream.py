"""A stream of tasks: what an epoch shows, in which order, and what is refused."""

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.data import ArrayData, Digits
from kdzoo.data.derived.task_stream import TaskStream, checked_tasks, of_classes, task_at
from kdzoo.errors import ConfigError

TASKS = [[3, 0], [1], [2, 4]]
COUNTS = [9, 14, 5, 7, 6, 11]  # of the classes 0..5; the last belongs to no task


def arrays(**options):
    """Return a source whose one input value is the class, some labels hidden."""
    targets = torch.arange(6).repeat_interleave(torch.tensor(COUNTS))
    inputs = targets.float()[:, None] + torch.arange(len(targets))[:, None] / 1000
    chosen = {"val_size": 12, "batch_size": 8, "eval_batch_size": 5, **options}
    data = ArrayData((inputs, targets), (inputs[::4], targets[::4]), **chosen)
    data.setup()
    return data


def draw(n, generator):
    return {"noise.z": torch.randn(n, 2, generator=generator)}


def stream(epochs=6, source=None, **options):
    data = TaskStream(source or arrays(), draw, tasks=TASKS, seed=3, **options)
    data.epochs = epochs
    return data


def batches(data, epoch):
    data.train_sampler.set_epoch(epoch)
    return list(data.train_dataloader())


def concatenated(batch_list):
    return {key: torch.cat([batch[key] for batch in batch_list]) for key in batch_list[0]}


# ---------------------------------------------------------------- what an epoch shows


@pytest.mark.parametrize("epoch", range(6))
def test_an_epoch_is_as_long_as_all_tasks_and_holds_the_current_one_alone(epoch):
    data = stream()
    seen = concatenated(batches(data, epoch))
    assert set(seen["target"].tolist()) == set(TASKS[epoch // 2])
    assert torch.equal(seen["input"][:, 0].floor().long(), seen["target"])
    source = concatenated(list(data.source.train_eval_dataloader()))
    assert len(seen["target"]) == sum((source["target"] == label).sum() for classes in TASKS for label in classes)
    assert torch.equal(source["input"][seen["index"]], seen["input"])


def test_the_samples_of_a_task_come_equally_often():
    data = stream()
    for task, rows in enumerate(data.rows):
        index = torch.cat([concatenated(batches(data, epoch))["index"] for epoch in (2 * task, 2 * task + 1)])
        found, counts = index.unique(return_counts=True)
        assert torch.equal(found, rows)
        assert counts.max() - counts.min() <= 1


def test_orders_differ_from_pass_to_pass_and_from_seed_to_seed():
    data = stream()
    n = len(data.rows[0])
    places = torch.arange(2 * n)
    first, second = data.rows_at(0, places).split(n)
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)
    other = stream(source=arrays(seed=1))
    assert not torch.equal(other.rows_at(0, places), data.rows_at(0, places))


@given(st.integers(0, 5), st.lists(st.integers(0, 30), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_a_sample_and_its_noise_are_functions_of_epoch_and_place(epoch, places):
    data = SHARED
    index = torch.tensor(places)
    dataset = data.train_dataloader().dataset
    together, alone = dataset[epoch, index], concatenated([dataset[epoch, one[None]] for one in index])
    assert all(torch.equal(value, alone[key]) for key, value in together.items())


SHARED = stream()


def test_noise_differs_between_places_and_epochs():
    data = stream()
    first, second = (concatenated(batches(data, epoch))["noise.z"] for epoch in (0, 1))
    assert len(torch.cat([first, second]).unique(dim=0)) == len(first) + len(second)


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_processes_share_the_batches_of_one(epoch):
    alone, ranks = batches(stream(), epoch), [stream(), stream()]
    for rank, data in enumerate(ranks):
        data.train_sampler.set_share(rank, 2)
    for one, *parts in zip(alone, *(batches(data, epoch) for data in ranks), strict=True):
        together = concatenated(parts)
        assert all(torch.equal(value, together[key]) for key, value in one.items())


def test_a_stream_is_resumed_at_any_batch():
    data = stream()
    uninterrupted = batches(data, 3)
    data.train_sampler.epoch, data.train_sampler.start = 3, 2
    rest = list(data.train_dataloader())
    assert len(rest) == len(uninterrupted) - 2
    assert all(torch.equal(one["index"], two["index"]) for one, two in zip(uninterrupted[2:], rest, strict=True))


def test_samples_without_a_label_are_in_no_task():
    source = Digits(labels_per_class=4)
    source.setup()
    data = TaskStream(source, draw, tasks=[[0, 1], [2]])
    assert [len(rows) for rows in data.rows] == [8, 4]


def test_the_test_split_has_all_classes_and_the_fingerprint_names_the_tasks():
    data = stream()
    assert len(concatenated(list(data.test_dataloader()))["target"]) == len(
        concatenated(list(data.source.test_dataloader()))["target"]
    )
    other = TaskStream(data.source, draw, tasks=TASKS[:2], seed=3)
    assert data.fingerprint() != other.fingerprint()


# ---------------------------------------------------------------- under a trainer


class Recorder(pl.LightningModule):
    """Records the classes that it is shown in each epoch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.trained, self.validated = {}, {}

    def training_step(self, batch, batch_idx):
        self.trained.setdefault(self.current_epoch, set()).update(batch["target"].tolist())
        return self.layer(batch["input"]).mean()

    def validation_step(self, batch, batch_idx):
        self.validated.setdefault(self.current_epoch, []).extend(batch["target"].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, epochs):
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    watch = Recorder()
    trainer.fit(watch, datamodule=data)
    return watch


@pytest.mark.filterwarnings("ignore")
def test_the_epochs_of_a_trainer_are_divided_among_the_tasks(tmp_path):
    data = stream()
    watch = fit(data, tmp_path, 3)
    assert watch.trained == {number: set(classes) for number, classes in enumerate(TASKS)}
    val = concatenated(list(data.source.val_dataloader()))["target"]
    for number, classes in enumerate(TASKS):
        assert watch.validated[number] == [one for one in val.tolist() if one in classes]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("epochs", [4, 1])
def test_epochs_that_cannot_be_divided_are_refused(epochs, tmp_path):
    with pytest.raises(ConfigError, match=rf"^trainer\.max_epochs must be a multiple of the 3 tasks, got {epochs}$"):
        fit(stream(), tmp_path, epochs)


# ---------------------------------------------------------------- small functions


@given(st.integers(1, 5), st.integers(1, 6))
def test_every_task_has_as_many_epochs(n_tasks, each):
    epochs = n_tasks * each
    found = [task_at(epoch, epochs, n_tasks) for epoch in range(epochs)]
    assert found == sorted(found)
    assert [found.count(task) for task in range(n_tasks)] == [each] * n_tasks


@pytest.mark.parametrize("epochs", [None, -1, 0, 5])
def test_a_number_of_epochs_that_is_no_multiple_is_refused(epochs):
    with pytest.raises(ConfigError, match=f"multiple of the 2 tasks, got {epochs}"):
        task_at(0, epochs, 2)


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ("01", "at least two lists"),
        ([[0, 1]], "at least two lists"),
        ([[0], []], "none empty"),
        ([0, 1], "at least two lists"),
        ([["a"], [1]], r"tasks\[0\]\[0\] must be an integer >= 0, got 'a'"),
        ([[0], [2, -1]], r"tasks\[1\]\[1\] must be an integer >= 0, got -1"),
        ([[0, 1], [1]], "class 1 comes twice"),
    ],
    ids=["text", "one task", "empty task", "no lists", "word", "negative", "twice"],
)
def test_wrong_tasks_are_refused(tasks, line):
    with pytest.raises(ConfigError, match=line) as caught:
        checked_tasks(tasks)
    assert "\n" not in str(caught.value)


def test_a_task_without_samples_is_refused():
    with pytest.raises(
        ConfigError, match=r"tasks\[1\] must have training samples, got classes \[8, 9\]; the data have"
    ):
        TaskStream(arrays(), draw, tasks=[[0], [8, 9]])


def test_samples_of_classes_and_none():
    batch = {"input": torch.arange(4.0), "target": torch.tensor([2, 0, 1, 2])}
    assert next(of_classes(batch, [2, 0]))["input"].tolist() == [0, 1, 3]
    assert list(of_classes(batch, [7])) == []
