"""Loss terms as sums with their counts, so that means are exact over micro-batches and ranks."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from kdzoo.core.batch import Batch, labelled_positions, n_samples, valid_positions


def total(value: Tensor, samples: int) -> tuple[Tensor, int]:
    """Return the sum of a term's values and their number; a scalar is the mean over ``samples``."""
    if value.ndim == 0:
        return value * samples, samples
    return value.sum(), value.numel()


def position_counts(batch: Batch) -> list[int]:
    """Return the number of valid and the number of labelled positions of a batch."""
    labelled = int(labelled_positions(batch).sum())
    if "mask" in batch:
        return [int(batch["mask"].sum()), labelled]
    return [batch["target"].numel() if "target" in batch else n_samples(batch), labelled]


def rows_about(values: Tensor, batch: Batch, labelled: bool) -> Tensor:
    """Return the rows of the batch that the True ``values``, one for each position of a term, are about.

    Args:
        values: bool, the shape of a term.
        batch: that the term was computed from.
        labelled: whether the term has a value per labelled position, or per valid one.
    """
    rows = torch.arange(n_samples(batch), device=values.device)
    selected = labelled_positions(batch) if labelled else valid_positions(batch)
    if isinstance(selected, Tensor):
        rows = selected.nonzero()[:, 0]
    if values.ndim == 0 or len(values) != len(rows):
        return torch.arange(n_samples(batch), device=values.device)
    return rows[values.reshape(len(rows), -1).any(1)].unique()


def over_ranks(values: Tensor) -> Tensor:
    """Return ``values`` summed over all ranks."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    summed = values.clone()
    dist.all_reduce(summed)
    return summed


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
        """Return the means, over all ranks, of the terms that have any value."""
        found = {}
        for name, summed in self.sums.items():
            count = int(over_ranks(torch.tensor(self.counts[name], device=summed.device)))
            if count:
                found[name] = over_ranks(summed) / count
        return found
