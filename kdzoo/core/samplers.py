"""The sampler of training batches: its order is a function of (seed, epoch), so that training resumes at any batch.

torch's own samplers draw their order from a generator whose state changes as they are used. To resume in the middle of
an epoch, that state would have to be saved at the beginning of the epoch. Here nothing is saved but the number of
batches done.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from kdzoo.core.randomness import permutation
from kdzoo.core.validation import flag, integer
from kdzoo.errors import ConfigError


class EpochBatches(Sampler[tuple[int, Tensor]]):
    """Yields ``(epoch, indices)`` for each batch of an epoch; the order is a function of (seed, epoch).

    Pass it to ``DataLoader(dataset, sampler=..., batch_size=None)``. Every rank takes its contiguous share of the
    same global batches, so that one process and several see the same samples in each step. Shares of one batch differ
    by at most one sample; a last batch with fewer samples than ranks is dropped, because a rank without samples would
    not take part in the averaging of gradients.

    To resume, call :meth:`set_position` before the iterator is made. ``set_epoch``, which Lightning calls
    before or after that, changes the epoch only.

    Args:
        n: Number of samples, >= 1.
        batch_size: Samples of a global batch, over all ranks, >= world_size.
        seed: Seed of the run.
        shuffle: Whether each epoch has a new random order; otherwise the order is 0..n-1.
        drop_last: Whether to leave out a last batch that is smaller than ``batch_size``.
        rank: Index of this process, in 0..world_size-1.
        world_size: Number of processes, >= 1.
        replicated: Whether every rank is given the full global batch, for data whose samples depend on the rest of
            the batch; the data set then takes the rank's :meth:`share` itself.

    Attributes:
        epoch: The epoch that the next iterator yields.
        start: Number of batches that iterators skip until one is exhausted or another epoch has begun.

    Raises:
        ConfigError: If an argument is out of range, or an epoch would have no batch.

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
        """Number of batches that the next iterator skips."""
        return self._start

    @start.setter
    def start(self, batches: int) -> None:
        self._start = batches
        # The epoch whose iterator has used this start. The start is not cleared when an iterator is made, because
        # Lightning may make an iterator, discard it and make another one for the same epoch.
        self._skipped_in: int | None = None

    def set_share(self, rank: int, world_size: int) -> None:
        """Make this the sampler of process ``rank`` of ``world_size``.

        Raises:
            ConfigError: If an argument is out of range, or an epoch would have no batch.
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
        """Choose the epoch; the number of batches to skip does not change."""
        self.epoch = epoch

    def set_position(self, batches_done: int, per_epoch: int | None = None) -> None:
        """Continue after ``batches_done`` batches of the uninterrupted stream.

        Args:
            batches_done: Number of batches trained so far, over all epochs, >= 0.
            per_epoch: Number of batches trained in one epoch if fewer than ``len(self)``, as with Lightning's
                ``limit_train_batches``; None means all.

        Raises:
            ConfigError: If an argument is out of range.
        """
        per_epoch = len(self) if per_epoch is None else integer("per_epoch", per_epoch, 1, len(self))
        self.epoch, self.start = divmod(integer("batches_done", batches_done, 0), per_epoch)

    def __len__(self) -> int:
        """Return the number of batches in a full epoch; ``start`` has no effect on it."""
        # Lightning reads the length once, when it sets up the fit loop. If it depended on ``start``, the epochs after
        # a resumed one would be cut short too.
        full, rest = divmod(self.n, self.batch_size)
        has_partial = rest > 0 and not self.drop_last and rest >= self.world_size
        return full + has_partial

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        # This method is not a generator itself, so that epoch and start are read when the iterator is made and not
        # at its first batch: Lightning may make the iterator before it calls set_epoch.
        if self._skipped_in not in (None, self.epoch):
            # The resumed epoch was left before its end (limit_train_batches), so _batches never cleared the start.
            self.start = 0
        if self.start:
            self._skipped_in = self.epoch
        return self._batches(self.epoch, self.start)

    def share(self, n: int) -> slice:
        """Return the positions of this rank's share in a batch of ``n`` samples.

        Example:
            >>> EpochBatches(5, 5, seed=0, rank=1, world_size=2).share(5)
            slice(2, 5, None)
        """
        # Bounds at floor(n r / world_size): consecutive shares touch, cover all samples and differ by at most one.
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[int, Tensor]]:
        order = self._order(epoch)
        for batch in range(start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield epoch, indices if self.replicated else self._rank_share(indices)
        self.start = 0

    def _order(self, epoch: int) -> Tensor:
        """Return the order of all samples in an epoch, int64 ``[n]``; a subclass may reorder them."""
        return permutation(self.n, self.seed, epoch) if self.shuffle else torch.arange(self.n)

    def _rank_share(self, indices: Tensor) -> Tensor:
        """Return this rank's samples of a global batch; a subclass may reorder them."""
        return indices[self.share(len(indices))]


def check_batch_size(batch_size: int, n: int) -> None:
    """Check that n training samples fill at least one batch.

    Raises:
        ConfigError: If they do not.
    """
    if batch_size > n:
        raise ConfigError(f"batch_size={batch_size} is larger than the {n} training samples; allowed: 1..{n}")
