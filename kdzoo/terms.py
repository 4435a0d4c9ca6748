"""Loss terms as sums with their counts, so that means are exact over micro-batches and ranks."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from kdzoo.batch import Batch, labelled_positions, n_samples, valid_positions


def total(value: Tensor, samples: int) -> tuple[Tensor, int]:
    """Return the sum of a term's values and their number; a scalar is the mean over ``samples``."""
    if value.ndim == 0:
        return value * samples, samples
    return value.sum(), value.numel()


def position_counts(batch: Batch) -> list[int]:
    """Return the number of valid and the number of labelled positions of a batch."""
    valid = valid_positions(batch)
    n_valid = n_samples(batch) if valid is ... else int(valid.sum())
    return [n_valid, int(labelled_positions(batch).sum())]


def over_ranks(counts: list[int], device: torch.device) -> list[int]:
    """Return the counts summed over all ranks."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return counts
    summed = torch.tensor(counts, dtype=torch.int64, device=device)
    dist.all_reduce(summed)
    return summed.tolist()


class RunningMeans:
    """Means of named terms over many batches, each divided by its own count."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Tensor], samples: int) -> None:
        """Add the terms of one batch."""
        for name, value in terms.items():
            summed, count = total(value.detach(), samples)
            self.sums[name] = self.sums.get(name, 0) + summed
            self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, Tensor]:
        """Return the means of the terms that have any value."""
        return {name: self.sums[name] / count for name, count in self.counts.items() if count}
