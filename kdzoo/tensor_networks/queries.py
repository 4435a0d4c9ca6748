"""Evaluations of a black box: in batches, no sample twice, counted, and within a budget.

Methods that build a chain from queries need all combinations of prefixes and suffixes of samples, most of which have
been evaluated before: the combinations at neighbouring bonds differ in one site only, and often in none, for example
where a pixel is 0 in all samples. The key of a sample is a sum over its sites, so that a combination costs one
addition.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError

Function = Callable[[Tensor], Tensor]
"""Returns outputs ``[samples, outputs]`` of samples ``[samples, sites]``."""
Keys = npt.NDArray[np.uint64]


class BudgetError(ConfigError):
    """The next evaluations would exceed the budget; none of them was made."""


class Oracle:
    """A function that is evaluated in batches, once for each sample, and whose evaluations are counted.

    Samples are identified by a 64-bit key of their numbers; among four million samples two have the same key with a
    probability below 1e-6.

    Args:
        function: Returns outputs ``[samples, outputs]`` of samples ``[samples, sites]``; called without gradients.
        batch_size: Most samples of one call, >= 1.
        budget: Largest number of evaluations, >= 1; None: any number.

    Attributes:
        evaluations: Number of samples that the function was evaluated for.
        asked: Number of samples that were requested, including those that were known.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> oracle = Oracle(lambda x: x.sum(1, keepdim=True))
        >>> oracle(torch.tensor([[1.0, 2.0], [1.0, 2.0]])).flatten().tolist(), oracle.evaluations
        ([3.0, 3.0], 1)
    """

    def __init__(self, function: Function, *, batch_size: int = 2048, budget: int | None = None) -> None:
        self.function = function
        self.batch_size = validation.integer("batch_size", batch_size)
        self.budget = None if budget is None else validation.integer("budget", budget)
        self.evaluations = self.asked = 0
        self._places: dict[int, int] = {}
        self._outputs = torch.empty(0, 0, dtype=torch.float64)

    def __call__(self, samples: Tensor) -> Tensor:
        """Return the outputs ``[samples, outputs]`` in float64 of samples ``[samples, sites]``."""
        return self.pairs(samples, samples.new_empty(1, 0))[:, 0]

    def pairs(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the outputs ``[n, m, outputs]`` in float64 of each of n prefixes with each of m suffixes.

        Args:
            left: Prefixes ``[n, any]``, the first numbers of samples.
            right: Suffixes ``[m, any]``, the other numbers.

        Raises:
            BudgetError: More samples are new than the budget has left; none is evaluated.
            DataError: An output is not finite, or the outputs are not a matrix.
        """
        keys = _keys(left, 0)[:, None] + _keys(right, left.shape[1])
        self.asked += keys.size
        unique, first, back = np.unique(keys, return_index=True, return_inverse=True)
        names = unique.tolist()
        places = np.array([self._places.get(name, -1) for name in names])
        new = np.flatnonzero(places < 0)  # checked before the first evaluation, so that a budget is never overspent
        if self.budget is not None and self.evaluations + len(new) > self.budget:
            raise BudgetError(
                f"budget={self.budget} evaluations are not enough: {self.evaluations} are spent, "
                f"the next {len(new)} would exceed it"
            )
        # One batch after the other is stored, so that an error does not lose what was paid for before.
        for piece in np.split(new, range(self.batch_size, len(new), self.batch_size)):
            if len(piece) == 0:
                continue
            row, column = (torch.from_numpy(index) for index in np.divmod(first[piece], len(right)))
            self._store(self._evaluate(torch.cat([left[row], right[column]], 1)))
            places[piece] = range(self.evaluations - len(piece), self.evaluations)
            self._places.update((names[i], int(places[i])) for i in piece)
        return self._outputs[torch.from_numpy(places[back.reshape(-1)])].unflatten(0, keys.shape)

    def _evaluate(self, samples: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = self.function(samples)
        if outputs.ndim != 2 or len(outputs) != len(samples):
            raise DataError(
                f"the function must return (samples, outputs) of {len(samples)} samples, got {tuple(outputs.shape)}"
            )
        bad = ~outputs.isfinite().all(1)
        if bool(bad.any()):
            raise DataError(f"the function's outputs for sample {samples[bad][0].tolist()[:8]}... are not finite")
        return outputs.double().cpu()

    def _store(self, outputs: Tensor) -> None:
        """Append outputs to those that are known, in memory that doubles when it is full."""
        known = self.evaluations
        self.evaluations += len(outputs)
        if self.evaluations > len(self._outputs):
            larger = outputs.new_empty(max(2 * len(self._outputs), self.evaluations), outputs.shape[1])
            if known:
                larger[:known] = self._outputs[:known]
            self._outputs = larger
        self._outputs[known : self.evaluations] = outputs


def _keys(parts: Tensor, start: int) -> Keys:
    """Return a key of each row of numbers ``[n, sites]``, which are those from site ``start`` on.

    The key of a sample is the sum of the keys of its parts, modulo 2^64. The mixing function is that of SplitMix64
    (Steele, Lea, Flood 2014), applied to the site and to the number.
    """
    bits = (parts.detach().cpu().double().numpy() + 0.0).view(np.uint64)  # + 0.0: -0 and 0 are the same number
    sites = np.arange(start + 1, start + 1 + parts.shape[1], dtype=np.uint64)
    return _mixed(bits + _mixed(sites)).sum(1, dtype=np.uint64)


def _mixed(bits: Keys) -> Keys:
    """Return the output of SplitMix64 for each number; the constants are those of its reference implementation."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
