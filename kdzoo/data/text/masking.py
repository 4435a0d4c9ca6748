"""Masked inputs and their targets, drawn anew in every epoch: the published recipe, and the ordinary one.

Every draw is a hash of (seed, epoch, index, position), so it is the same in any process and after any restart. With
a fixed number of targets, which positions are chosen also depends on what else is in the batch: give it the whole one.

References:
    Devlin et al.: BERT. NAACL 2019, arXiv:1810.04805, section 3.1: 80 % mask, 10 % another token, 10 % kept.
    Sanh et al.: DistilBERT. 2019, arXiv:1910.01108, and its code: exactly ceil(rate * tokens) targets in a batch.
    Lample & Conneau: Cross-lingual language model pretraining. 2019, arXiv:1901.07291, section 3.3: rare tokens are
    chosen more often.
    Efraimidis & Spirakis: Weighted random sampling with a reservoir. 2006: the k smallest of Exp(1) / weight are a
    sample without replacement in proportion to the weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE
from kdzoo.core.randomness import MAX_HIGH, uniform_ints

KINDS = ("fixed", "bernoulli")
MASKED, RANDOM = 0.8, 0.1
_CHOICE, _FATE, _TOKEN = 1, 2, 3
"""Streams of draws: which positions, what becomes of them, which token stands there."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def token_weights(counts: Ints, special: Sequence[int], smoothing: float) -> Floats:
    """Return max(count, 1) ** -smoothing for each token, 0 for the special ones [V].

    Example:
        >>> token_weights(np.array([9, 4, 0]), [0], 0.5).tolist()
        [0.0, 0.5, 1.0]
    """
    weights = np.maximum(counts, 1).astype(np.float64) ** -smoothing
    weights[list(special)] = 0.0
    return weights


def number_of_targets(n_tokens: int, rate: float) -> int:
    """Return ceil(rate * n_tokens)."""
    return math.ceil(rate * n_tokens)


def choose_number(weights: Floats, number: int, uniform: Floats) -> Bools:
    """Choose exactly ``number`` positions (all of positive weight if there are fewer), in proportion to weights.

    Args:
        weights: [n], >= 0.
        number: >= 0.
        uniform: [n], in (0, 1).

    Returns:
        Where the chosen positions are, bool [n]; never one of weight 0.
    """
    number = min(number, int((weights > 0).sum()))
    chosen = np.zeros(len(weights), np.bool_)
    if number:
        with np.errstate(divide="ignore"):
            waiting = -np.log(uniform) / weights
        chosen[np.argpartition(waiting, number - 1)[:number]] = True
    return chosen


@dataclass(frozen=True)
class Masks:
    """Turns tokens into masked inputs and targets.

    Args:
        weights: of each token to be chosen, float64 [V], 0 for special ones, which are never chosen nor written.
        mask_id: the mask token.
        rate: share of the tokens that are targets, in [0, 1).
        seed: of the draws.
        is_fixed: choose exactly ceil(rate * tokens) positions by weights; otherwise each token whose weight is not 0
            by itself, with probability ``rate``.
        epoch: draw as in this epoch, whatever it is; None for other masks in every epoch.
        by_row: choose the number of positions in each row by itself, so that its masks do not depend on the batch.
    """

    weights: Floats
    mask_id: int
    rate: float
    seed: int
    is_fixed: bool
    epoch: int | None = None
    by_row: bool = False

    def __call__(self, ids: Tensor, valid: Tensor, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return input and target, int64 [b, L] each; ``IGNORE`` where a token is no target.

        Args:
            ids: int64 [b, L], all of a batch.
            valid: bool [b, L], tokens that are no padding.
            epoch: the epoch.
            index: int64 [b], the rows' positions in their part.
        """
        epoch = epoch if self.epoch is None else self.epoch
        places = index.numpy()[:, None] * ids.shape[1] + np.arange(ids.shape[1])
        rows = ids.numpy()
        chosen = self._choose(rows, valid.numpy(), places, epoch)
        inputs = rows.copy()
        inputs[chosen] = self._written(rows[chosen], places[chosen], epoch)
        return torch.from_numpy(inputs), torch.from_numpy(np.where(chosen, rows, IGNORE))

    def _choose(self, rows: Ints, valid: Bools, places: Ints, epoch: int) -> Bools:
        uniform = self._uniform(epoch, places.reshape(-1), _CHOICE).reshape(places.shape)
        weights = self.weights[rows] * valid
        if not self.is_fixed:
            return (uniform < self.rate) & (weights > 0)
        groups = [slice(i, i + 1) for i in range(len(rows))] if self.by_row else [slice(None)]
        return np.concatenate([self._fixed(weights[one], valid[one], uniform[one]) for one in groups])

    def _fixed(self, weights: Floats, valid: Bools, uniform: Floats) -> Bools:
        """Choose exactly ceil(rate * tokens) positions of some rows together."""
        number = number_of_targets(int(valid.sum()), self.rate)
        return choose_number(weights.reshape(-1), number, uniform.reshape(-1)).reshape(weights.shape)

    def _written(self, tokens: Ints, places: Ints, epoch: int) -> Ints:
        """Return what stands where the tokens [n] were: the mask, another token, or the token."""
        if not len(tokens):
            return tokens
        ordinary = np.flatnonzero(self.weights)
        other = ordinary[uniform_ints(self.seed, epoch, places, _TOKEN, len(ordinary))]
        fate = self._uniform(epoch, places, _FATE)
        return np.where(fate < MASKED, self.mask_id, np.where(fate < MASKED + RANDOM, other, tokens))

    def _uniform(self, epoch: int, places: Ints, stream: int) -> Floats:
        return (uniform_ints(self.seed, epoch, places, stream, MAX_HIGH) + 0.5) / MAX_HIGH
