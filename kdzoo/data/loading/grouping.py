"""A sampler that sorts the samples of a batch by length, and may group samples of similar length into batches."""

from typing import Any

import torch
from torch import Tensor

from kdzoo.core.randomness import permutation
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import flag

# Number of batches whose samples are sorted together. A larger pool makes lengths within a batch more alike and saves
# padding; a smaller one keeps the order closer to a uniformly random one. Hugging Face's LengthGroupedSampler sorts 50
# batches at once too.
POOL = 50
# Any fixed number; it differs from the keys of ``splits.py`` and ``shares.py``, so that the orders are independent.
_GROUP_KEY = 1_202_614


class LengthBatches(EpochBatches):
    """Batches whose longest samples come first, so that micro-batches need less padding.

    Args:
        lengths: Length of each sample, int64 ``[n]``.
        grouped: Whether to make batches of samples of similar length. The random order is cut into pools of ``POOL``
            batches, each pool is sorted by length and cut into batches, and the batches are shuffled. A last, partial
            batch is not changed. Every sample is used once in an epoch; the order is a function of (seed, epoch).
        options: See :class:`kdzoo.core.samplers.EpochBatches`.

    Raises:
        ConfigError: If an option is out of range.

    Example:
        >>> lengths = torch.tensor([2, 9, 1, 8])
        >>> sorted(lengths[rows].tolist() for _, rows in LengthBatches(lengths, True, n=4, batch_size=2, seed=0))
        [[2, 1], [9, 8]]
    """

    def __init__(self, lengths: Tensor, grouped: bool, **options: Any) -> None:
        self.lengths = lengths
        self.grouped = flag("group_by_length", grouped)
        super().__init__(**options)

    def _order(self, epoch: int) -> Tensor:
        order = super()._order(epoch)
        return group(order, self.lengths, self.batch_size, self.seed, epoch) if self.grouped else order

    def _rank_share(self, indices: Tensor) -> Tensor:
        share = super()._rank_share(indices)
        # A stable sort, so that the order of equal lengths does not depend on the platform's sorting algorithm.
        return share[self.lengths[share].argsort(descending=True, stable=True)]


def group(order: Tensor, lengths: Tensor, batch_size: int, *key: int) -> Tensor:
    """Return an order of samples, int64 ``[n]``, whose batches are of similar length; a partial batch stays last.

    Args:
        order: A random order of the samples, int64 ``[n]``.
        lengths: Length of each sample, int64 ``[n]``.
        batch_size: Samples of a batch.
        key: Integers that decide the order of the batches.
    """
    full, rest = order.tensor_split([len(order) // batch_size * batch_size])
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in full.split(POOL * batch_size)]
    batches = torch.cat(pools).view(-1, batch_size)
    # Without this shuffle every pool would go from short to long samples, and the gradients with them.
    return torch.cat([batches[permutation(len(batches), _GROUP_KEY, *key)].flatten(), rest])
