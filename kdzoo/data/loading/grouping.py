"""Batches whose samples are put in the order of their lengths, or are of similar length."""

from typing import Any

import torch
from torch import Tensor

from kdzoo.core.randomness import permutation
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import flag

POOL = 50
"""Batches whose samples are sorted together; more of them make lengths more alike, and orders less random."""
_GROUP_KEY = 1_202_614


class LengthBatches(EpochBatches):
    """Batches whose longest samples come first, so that what is computed in parts needs less padding.

    Args:
        lengths: length of each sample, int64 [n].
        grouped: make batches of samples of similar length: the random order is cut into pools of POOL batches,
            each pool is sorted by length and cut into batches, and the batches are shuffled. A last, partial batch
            is left as it is. Every sample is met once in an epoch; the order is a function of (seed, epoch).
        options: see :class:`kdzoo.core.samplers.EpochBatches`.

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

    def _own(self, indices: Tensor) -> Tensor:
        own = super()._own(indices)
        return own[self.lengths[own].argsort(descending=True, stable=True)]


def group(order: Tensor, lengths: Tensor, batch_size: int, *key: int) -> Tensor:
    """Return an order of samples [n] whose batches are of similar length; what is left of n is its end as it was.

    Args:
        order: a random order of the samples, int64 [n].
        lengths: length of each sample, int64 [n].
        batch_size: samples of a batch.
        key: what the order of the batches is a function of.
    """
    full, rest = order.tensor_split([len(order) // batch_size * batch_size])
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in full.split(POOL * batch_size)]
    batches = torch.cat(pools).view(-1, batch_size)
    return torch.cat([batches[permutation(len(batches), _GROUP_KEY, *key)].flatten(), rest])
