"""A stream of tasks for continual learning: each task is a group of classes, and tasks follow one another.

The epochs of a training are divided equally among the tasks. An epoch has as many samples as the source has of all
tasks together, but all of them are from the current task: it makes several passes over the samples of the task, each in
a new order. Training on the stream therefore takes as many steps as training on all classes at once, and if the tasks
are equally large, each sample is used equally often.
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
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader
from kdzoo.errors import ConfigError

Tasks = tuple[tuple[int, ...], ...]
"""The classes of each task."""


def checked_tasks(tasks: Any) -> Tasks:
    """Return the classes of each task as tuples.

    Raises:
        ConfigError: If there are fewer than two tasks, one is empty, or a class is not an integer >= 0 or is in two
            tasks.

    Example:
        >>> checked_tasks([[0, 1], [2]])
        ((0, 1), (2,))
    """
    allowed = "a list of at least two lists of classes"
    if not _is_list(tasks) or len(tasks) < 2 or not all(_is_list(classes) and classes for classes in tasks):
        raise ConfigError(f"tasks must be {allowed}, none empty, got {tasks!r}")
    checked = tuple(
        tuple(integer(f"tasks[{i}][{j}]", label, 0) for j, label in enumerate(classes))
        for i, classes in enumerate(tasks)
    )
    # A class in two tasks would return later, and then forgetting it could not be measured.
    seen: set[int] = set()
    for label in (label for classes in checked for label in classes):
        if label in seen:
            raise ConfigError(f"tasks must be {allowed}, each class once; class {label} comes twice")
        seen.add(label)
    return checked


def _is_list(value: Any) -> bool:
    """Return whether a value is a sequence, such as OmegaConf's lists, and not a string."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def task_at(epoch: int, epochs: int | None, n_tasks: int) -> int:
    """Return the number of the task that an epoch of a training belongs to.

    Args:
        epoch: Number of the epoch, in 0..epochs-1.
        epochs: Number of epochs of the training; None or -1 if they are not limited.
        n_tasks: Number of tasks that share the epochs equally.

    Raises:
        ConfigError: If the epochs cannot be divided equally.

    Example:
        >>> [task_at(epoch, 6, 3) for epoch in range(6)]
        [0, 0, 1, 1, 2, 2]
    """
    if epochs is None or epochs < 1 or epochs % n_tasks:
        raise ConfigError(f"trainer.max_epochs must be a multiple of the {n_tasks} tasks, got {epochs}")
    # Lightning's current_epoch is ``epochs`` after the last epoch; that still belongs to the last task.
    return min(epoch * n_tasks // epochs, n_tasks - 1)


class TaskStream(NoisyData):
    """Training and val samples of the task of the current epoch, with noise; the test split has all classes.

    ``index`` is the row in the source's training split. The noise of a training sample is a function of
    (seed, epoch, position in the epoch).

    Args:
        source: The data, after ``setup()``, with labels.
        draw: Draws the noise of n samples.
        tasks: Classes of each task, each class in at most one; samples of other classes and samples without a label
            are left out.
        seed: Seed of the noise, >= 0.

    Raises:
        ConfigError: If the tasks are not lists of different classes, or a task has no training sample; in ``setup``, if
            the epochs cannot be divided equally among the tasks.
    """

    def __init__(self, source: BatchData, draw: Draw, *, tasks: Sequence[Sequence[int]], seed: int = 0) -> None:
        super().__init__(source, draw, noise_only=False, seed=seed)
        self.tasks = checked_tasks(tasks)
        targets = torch.cat([batch["target"] for batch in source.train_eval_dataloader()])
        self.rows = [_in_task(targets, classes).nonzero()[:, 0] for classes in self.tasks]
        for number, (classes, rows) in enumerate(zip(self.tasks, self.rows, strict=True)):
            if not len(rows):
                present = targets[targets >= 0].unique().tolist()
                raise ConfigError(
                    f"tasks[{number}] must have training samples, got classes {list(classes)}; the data have {present}"
                )
        sampler = source.train_sampler
        n = sum(len(rows) for rows in self.rows)
        # Not shuffled: the sampler yields positions of an epoch, and rows_at decides which samples they are.
        self.train_sampler = EpochBatches(n, sampler.batch_size, sampler.seed, False, sampler.drop_last)
        self.epochs = len(self.tasks)  # without a trainer, one epoch for each task

    def setup(self, stage: str | None = None) -> None:
        """Divide the trainer's epochs among the tasks, and take this process's share of the batches."""
        if self.trainer is not None:
            task_at(0, self.trainer.max_epochs, len(self.tasks))
            self.epochs = int(self.trainer.max_epochs or 0)
        super().setup(stage)

    def task_of(self, epoch: int) -> int:
        """Return the number of the task that an epoch belongs to."""
        return task_at(epoch, self.epochs, len(self.tasks))

    def rows_at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the training rows (int64 ``[b]``) at positions of an epoch, which are in 0..n-1."""
        task, n = self.task_of(epoch), self.train_sampler.n
        rows = self.rows[task]
        epochs_done = epoch - task * self.epochs // len(self.tasks)  # of the same task
        # Passes continue over the end of an epoch, so that all samples of a task are used equally often.
        passes = (epochs_done * n + positions) // len(rows)
        within_pass = (epochs_done * n + positions) % len(rows)
        result = torch.empty_like(positions)
        for number in passes.unique().tolist():
            in_pass = passes == number
            order = permutation(len(rows), self.train_sampler.seed, task, number)
            result[in_pass] = rows[order[within_pass[in_pass]]]
        return result

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        loader: Any = self.source.train_dataloader()
        return batch_loader(_TaskBatches(self, loader.dataset), self.train_sampler, num_workers=loader.num_workers)

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val samples of the current task, with noise that is the same in every epoch."""
        loader = super().val_dataloader()
        return [] if isinstance(loader, list) else _TaskValidation(loader, self)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the noisy data's fingerprint and the tasks."""
        return hashlib.sha256(f"{super().fingerprint()} {self.tasks}".encode()).hexdigest()


class _TaskBatches(BatchDataset):
    """Batches of the epoch's task with noise; the keys are positions of the epoch."""

    def __init__(self, data: TaskStream, samples: Dataset[Batch]) -> None:
        self.data, self.samples = data, samples

    def __len__(self) -> int:
        return self.data.train_sampler.n

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at positions of an epoch; their ``index`` is the row of the source."""
        rows = self.data.rows_at(epoch, index)
        return {**self.samples[epoch, rows], **self.data.noise(epoch, index)}


class _TaskValidation:
    """The samples of the current task in the batches of a loader; batches without such samples are left out."""

    def __init__(self, batches: Any, data: TaskStream) -> None:
        self.batches, self.data = batches, data

    def __len__(self) -> int:
        # An upper bound: which batches have samples of the task is known only after reading them.
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        # The trainer is asked when iteration begins: Lightning makes this loader once for all epochs.
        epoch = 0 if self.data.trainer is None else self.data.trainer.current_epoch
        classes = self.data.tasks[self.data.task_of(epoch)]
        for batch in self.batches:
            yield from of_classes(batch, classes)


def of_classes(batch: Batch, classes: Sequence[int]) -> Iterator[Batch]:
    """Yield one batch of the samples that have one of the classes; nothing if there are none."""
    in_task = _in_task(batch["target"], classes)
    if bool(in_task.any()):
        yield {key: value[in_task] for key, value in batch.items()}


def _in_task(targets: Tensor, classes: Sequence[int]) -> Tensor:
    """Return which targets are one of the classes (bool, the shape of the targets)."""
    return torch.isin(targets, torch.tensor(classes, device=targets.device))
