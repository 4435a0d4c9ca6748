"""A stream of tasks: the classes of a data set arrive in groups, one group after the other, and never return.

The epochs of a training are divided equally among the tasks. An epoch has as many samples as the source has of all
tasks together, drawn from the current task alone: pass after pass over its samples, each in an order of its own. The
stream is therefore as long as a training on everything, and if the tasks are equally large it shows a sample as often.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.randomness import permutation
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import integer
from kdzoo.data.derived.noise import Draw, NoisyData
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.errors import ConfigError

Tasks = tuple[tuple[int, ...], ...]


def checked_tasks(tasks: Any) -> Tasks:
    """Return the classes of each task as tuples.

    Raises:
        ConfigError: there are fewer than two tasks, one is empty, or a class is no integer >= 0 or comes twice.

    Example:
        >>> checked_tasks([[0, 1], [2]])
        ((0, 1), (2,))
    """
    allowed = "a list of at least two lists of classes"
    if not _is_list(tasks) or len(tasks) < 2 or not all(_is_list(classes) and classes for classes in tasks):
        raise ConfigError(f"tasks must be {allowed}, none empty, got {tasks!r}")
    found = tuple(
        tuple(integer(f"tasks[{i}][{j}]", one, 0) for j, one in enumerate(classes)) for i, classes in enumerate(tasks)
    )
    seen: set[int] = set()
    for one in (one for classes in found for one in classes):
        if one in seen:
            raise ConfigError(f"tasks must be {allowed}, each class once; class {one} comes twice")
        seen.add(one)
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def task_at(epoch: int, epochs: int | None, n_tasks: int) -> int:
    """Return the number of the task that an epoch of a training belongs to.

    Args:
        epoch: 0..epochs-1.
        epochs: of the training.
        n_tasks: tasks that share them equally.

    Raises:
        ConfigError: the epochs cannot be divided equally.

    Example:
        >>> [task_at(epoch, 6, 3) for epoch in range(6)]
        [0, 0, 1, 1, 2, 2]
    """
    if epochs is None or epochs < 1 or epochs % n_tasks:
        raise ConfigError(f"trainer.max_epochs must be a multiple of the {n_tasks} tasks, got {epochs}")
    return min(epoch * n_tasks // epochs, n_tasks - 1)


class TaskStream(NoisyData):
    """Training and val samples of the task that the current epoch belongs to, with noise; the test part is whole.

    Batches hold ``index``, the row in the source's training split. The noise of a training sample is a function of
    (seed, epoch, place in the epoch).

    Args:
        source: the data; set up, with labels.
        draw: makes the noise of n samples.
        tasks: classes of each task, each at most once; samples of other classes and without a label are left out.
        seed: of the noise, >= 0.

    Raises:
        ConfigError: the tasks are no lists of different classes, or a task has no training sample; in ``setup``, the
            epochs cannot be divided equally among the tasks.
    """

    def __init__(self, source: BatchData, draw: Draw, *, tasks: Sequence[Sequence[int]], seed: int = 0) -> None:
        super().__init__(source, draw, alone=False, seed=seed)
        self.tasks = checked_tasks(tasks)
        targets = torch.cat([batch["target"] for batch in source.train_eval_dataloader()])
        self.rows = [_in_task(targets, classes).nonzero()[:, 0] for classes in self.tasks]
        for number, (classes, rows) in enumerate(zip(self.tasks, self.rows, strict=True)):
            if not len(rows):
                present = targets[targets >= 0].unique().tolist()
                raise ConfigError(
                    f"tasks[{number}] must have training samples, got classes {list(classes)}; the data have {present}"
                )
        theirs = source.train_sampler
        n = sum(len(rows) for rows in self.rows)
        self.train_sampler = EpochBatches(n, theirs.batch_size, theirs.seed, False, theirs.drop_last)
        self.epochs = len(self.tasks)

    def setup(self, stage: str | None = None) -> None:
        """Divide the trainer's epochs among the tasks, and take this process's share of the batches."""
        if self.trainer is not None:
            task_at(0, self.trainer.max_epochs, len(self.tasks))
            self.epochs = int(self.trainer.max_epochs or 0)
        super().setup(stage)

    def task_of(self, epoch: int) -> int:
        """Return the number of the task that an epoch belongs to."""
        return task_at(epoch, self.epochs, len(self.tasks))

    def rows_at(self, epoch: int, places: Tensor) -> Tensor:
        """Return the training rows at places of an epoch, int64 [b], places in 0..n-1."""
        task, n = self.task_of(epoch), self.train_sampler.n
        rows = self.rows[task]
        before = epoch - task * self.epochs // len(self.tasks)  # epochs of the same task
        passes, within = (before * n + places) // len(rows), (before * n + places) % len(rows)
        found = torch.empty_like(places)
        for number in passes.unique().tolist():
            here = passes == number
            found[here] = rows[permutation(len(rows), self.train_sampler.seed, task, number)[within[here]]]
        return found

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        loader: Any = self.source.train_dataloader()
        return batch_loader(_OfTask(self, loader.dataset), self.train_sampler, num_workers=loader.num_workers)

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val samples of the current task, with noise that is the same in every epoch."""
        part = super().val_dataloader()
        return [] if isinstance(part, list) else _ValOfTask(part, self)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the noisy data's fingerprint and the tasks."""
        return hashlib.sha256(f"{super().fingerprint()} {self.tasks}".encode()).hexdigest()


class _OfTask(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, places]`` with samples of the epoch's task and their noise."""

    def __init__(self, data: TaskStream, samples: Dataset[Batch]) -> None:
        self.data, self.samples = data, samples

    def __len__(self) -> int:
        return self.data.train_sampler.n

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        epoch, places = key
        rows = self.data.rows_at(epoch, places)
        return {**self.samples[epoch, rows], **self.data.noise(epoch, places)}


class _ValOfTask:
    """The samples of the current task in the batches of a loader; batches without any are left out."""

    def __init__(self, batches: Any, data: TaskStream) -> None:
        self.batches, self.data = batches, data

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        epoch = 0 if self.data.trainer is None else self.data.trainer.current_epoch
        classes = self.data.tasks[self.data.task_of(epoch)]
        for batch in self.batches:
            yield from of_classes(batch, classes)


def of_classes(batch: Batch, classes: Sequence[int]) -> Iterator[Batch]:
    """Yield the samples of a batch that are of some classes, in one batch; nothing if there are none."""
    chosen = _in_task(batch["target"], classes)
    if bool(chosen.any()):
        yield {key: value[chosen] for key, value in batch.items()}


def _in_task(targets: Tensor, classes: Sequence[int]) -> Tensor:
    return torch.isin(targets, torch.tensor(classes, device=targets.device))
