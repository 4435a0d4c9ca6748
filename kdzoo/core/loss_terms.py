"""Loss terms as sums with their counts, so that means are exact over micro-batches and ranks, and their weights."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from kdzoo.core.batch import Batch, labelled_positions, n_samples, on_host
from kdzoo.core.parallel import is_distributed
from kdzoo.core.precision import widen
from kdzoo.errors import ConfigError

Count = int | Tensor
"""A number of values: a scalar on the device where it is a sum over ranks, so that the host need not wait for it."""


def total(value: Tensor, samples: int) -> tuple[Tensor, int]:
    """Return the sum of a term's values and their number; a scalar is the mean over ``samples``."""
    if value.ndim == 0:
        return value * samples, samples
    return value.sum(), value.numel()


def position_counts(batch: Batch) -> list[int]:
    """Return the number of valid and the number of labelled positions of a batch."""
    host = on_host(batch)
    labelled = _count(labelled_positions(host)) if "target" in host else 0
    if "mask" in host:
        return [_count(host["mask"]), labelled]
    # Without a mask every position is valid; targets of sequences have one position for each token. Batches with noise
    # have lengths, and terms with a value for each sample.
    return [host["target"].numel() if "target" in host and "length" not in host else n_samples(batch), labelled]


def _count(mask: Tensor) -> int:
    """Return the number of True values, which a mask in the host's memory gives without waiting for a device."""
    return int(np.count_nonzero(mask.cpu().numpy()))


def rows_about(values: Tensor, batch: Batch, labelled: bool) -> Tensor:
    """Return the rows of the batch that the True ``values``, one for each position of a term, are about.

    Args:
        values: bool, the shape of a term.
        batch: that the term was computed from.
        labelled: whether the term has a value per labelled position, or per valid one.
    """
    rows = torch.arange(n_samples(batch), device=values.device)
    mask = labelled_positions(batch) if labelled else batch.get("mask")
    if mask is not None:
        rows = mask.nonzero()[:, 0]
    # A mean, or a term with its own kind of positions, cannot be traced to single rows: all of them are named.
    if values.ndim == 0 or len(values) != len(rows):
        return torch.arange(n_samples(batch), device=values.device)
    return rows[values.reshape(len(rows), -1).any(1)].unique()


def over_ranks(values: Tensor) -> Tensor:
    """Return ``values`` summed over all ranks."""
    if not is_distributed():
        return values
    summed = values.clone()  # all_reduce works in place
    dist.all_reduce(summed)
    return summed


def counts_over_ranks(counts: list[int], device: torch.device) -> list[Count]:
    """Return numbers of values summed over all ranks."""
    if not is_distributed():
        return list(counts)
    # Without non_blocking, the host would wait until the device has received the numbers.
    return list(over_ranks(torch.tensor(counts).to(device, non_blocking=True)))


def at_least_one(count: Count) -> Count:
    """Return a number to divide by: the mean of no values is 0."""
    return widen(count.clamp_min(1)) if isinstance(count, Tensor) else max(count, 1)


class StepMeans:
    """The mean of each term in one step, to which every micro-batch adds its share."""

    def __init__(self) -> None:
        self._means: dict[str, Tensor] = {}
        self._counts: dict[str, Count] = {}

    def add(self, name: str, share: Tensor, count: Count) -> None:
        """Add a micro-batch's share of the mean of a term, and the number of its values in the whole step."""
        self._means[name] = self._means.get(name, 0) + share
        self._counts[name] = count

    def of_terms_with_values(self) -> dict[str, Tensor]:
        """Return the means of the terms that have at least one value; waits for an accelerator if there are ranks."""
        return {name: mean for name, mean in self._means.items() if self._counts[name]}


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
        """Return the means over all ranks of the terms that have at least one value."""
        means = {}
        for name, summed in self.sums.items():
            # A rank without labels has a count of 0 but takes part: every rank must call all_reduce equally often.
            count = int(over_ranks(torch.tensor(self.counts[name], device=summed.device)))
            if count:
                means[name] = over_ranks(summed) / count
        return means


def merge_weights(defaults: Mapping[str, float], given: Mapping[str, float | int]) -> dict[str, float]:
    """Return the default weights with the given ones in their place, after validating these."""
    for name, weight in given.items():
        # bool is a subclass of int, but ``true`` is a mistake; NaN fails the comparison.
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(f"loss_weights.{name} must be a finite number >= 0, got {weight!r}")
    # A method that declares no terms has its weights checked in the dry run, which shows their names.
    if defaults:
        check_weights(given, defaults)
    return {**defaults, **{name: float(weight) for name, weight in given.items()}}


def check_declared(returned: Iterable[str], declared: Iterable[str], method: str) -> None:
    """Reject terms that the losses of a method return although its ``info`` does not declare them."""
    unknown = sorted(set(returned) - set(declared))
    if unknown:
        raise ConfigError(
            f"{method}.losses returns the term {unknown[0]!r}, which is not in info.terms; declared: {sorted(declared)}"
        )


def check_weights(given: Iterable[str], known: Iterable[str]) -> None:
    """Reject weights of terms that the method does not have."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"loss_weights.{unknown[0]} is not a term of this distiller; its terms: {sorted(known)}")
