"""Which samples make which batch: a function of (seed, epoch), so that training resumes at any batch."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from kdzoo.core.randomness import permutation
from kdzoo.core.validation import flag, integer
from kdzoo.errors import ConfigError


class EpochBatches(Sampler[tuple[int, Tensor]]):
    """Yields ``(epoch, indices)`` for each batch of an epoch; the order is a function of (seed, epoch).

    Give it to ``DataLoader(dataset, sampler=..., batch_size=None)``. Every rank cuts its contiguous share out
    of the same global batches, so one process and several see the same samples in each step. A share may be
    one sample longer than another's; a last partial batch with fewer samples than ranks is dropped.

    To resume, call :meth:`set_position` before the iterator is made. ``set_epoch``, which Lightning calls
    before or after that, changes the epoch only.

    Args:
        n: number of samples, >= 1.
        batch_size: samples of a global batch, over all ranks, >= world_size.
        seed: the run's seed.
        shuffle: a new random order in each epoch; otherwise 0..n-1.
        drop_last: leave out a last batch that is smaller than ``batch_size``.
        rank: this process, in 0..world_size-1.
        world_size: number of processes, >= 1.
        whole: give every rank the whole batch, for data whose samples depend on what else is in it; the data set
            takes the rank's :meth:`share` itself.

    Attributes:
        epoch: the epoch that the next iterator walks through.
        start: batches that iterators skip until one has come to its end or another epoch has begun.

    Raises:
        ConfigError: an argument is out of range, or an epoch would have no batch.

    Example:
        >>> [indices.tolist() for _, indices in EpochBatches(5, 2, seed=0, shuffle=False)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        replicated: bool = False,
    ) -> None:
        self.n = integer("n", n, 1)
        self.batch_size = integer("batch_size", batch_size, 1)
        self.seed = seed
        self.shuffle = flag("shuffle", shuffle)
        self.drop_last = flag("drop_last", drop_last)
        self.replicated = flag("replicated", replicated)
        self.epoch = 0
        self.start = 0
        self.set_share(rank, world_size)

    @property
    def start(self) -> int:
        """Batches that the next iterator skips."""
        return self._start

    @start.setter
    def start(self, batches: int) -> None:
        self._start = batches
        self._skipped_in: int | None = None  # the epoch whose iterator has used this start

    def set_share(self, rank: int, world_size: int) -> None:
        """Make this the sampler of process ``rank`` of ``world_size``.

        Raises:
            ConfigError: an argument is out of range, or an epoch would have no batch.
        """
        self.world_size = integer("world_size", world_size, 1)
        self.rank = integer("rank", rank, 0, world_size - 1)
        if self.batch_size < world_size:
            raise ConfigError(
                f"batch_size={self.batch_size} is the global batch of {world_size} processes; allowed: >= {world_size}"
            )
        if len(self) == 0:
            raise ConfigError(
                f"the train set has 0 batches (n={self.n}, batch_size={self.batch_size}, "
                f"drop_last={self.drop_last}, world_size={world_size}); allowed: at least one"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the number of batches to skip stays."""
        self.epoch = epoch

    def set_position(self, batches_done: int, per_epoch: int | None = None) -> None:
        """Continue after ``batches_done`` batches of the uninterrupted stream.

        Args:
            batches_done: batches trained so far, over all epochs, >= 0.
            per_epoch: batches trained in one epoch when fewer than ``len(self)``, as with Lightning's
                ``limit_train_batches``; None for all.

        Raises:
            ConfigError: an argument is out of range.
        """
        per_epoch = len(self) if per_epoch is None else integer("per_epoch", per_epoch, 1, len(self))
        self.epoch, self.start = divmod(integer("batches_done", batches_done, 0), per_epoch)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, whatever ``start`` is."""
        full, rest = divmod(self.n, self.batch_size)
        has_partial = rest > 0 and not self.drop_last and rest >= self.world_size
        return full + has_partial

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        # Read here, not at the first batch: Lightning may make the iterator before it calls set_epoch.
        if self._skipped_in not in (None, self.epoch):
            self.start = 0  # the resumed epoch was left before its end
        if self.start:
            self._skipped_in = self.epoch
        return self._walk(self.epoch, self.start)

    def share(self, n: int) -> slice:
        """Return where this rank's share of a batch of ``n`` samples is.

        Example:
            >>> EpochBatches(5, 5, seed=0, rank=1, world_size=2).share(5)
            slice(2, 5, None)
        """
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def _walk(self, epoch: int, start: int) -> Iterator[tuple[int, Tensor]]:
        order = self._order(epoch)
        for batch in range(start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield epoch, indices if self.replicated else self._own(indices)
        self.start = 0

    def _order(self, epoch: int) -> Tensor:
        """Return all samples, batch after batch."""
        return permutation(self.n, self.seed, epoch) if self.shuffle else torch.arange(self.n)

    def _own(self, indices: Tensor) -> Tensor:
        """Return this rank's samples of a batch."""
        return indices[self.share(len(indices))]


def check_batch_size(batch_size: int, n: int) -> None:
    """Check that n training samples fill a batch.

    Raises:
        ConfigError: they do not.
    """
    if batch_size > n:
        raise ConfigError(f"batch_size={batch_size} is larger than the {n} training samples; allowed: 1..{n}")
