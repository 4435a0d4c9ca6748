"""Masked inputs and their targets: which tokens are selected, and what replaces them.

Every draw is a hash of (seed, epoch, index, position), so it is the same in any process and after any restart. With a
fixed number of targets, the selected positions also depend on the rest of the batch: pass the global batch.

References:
    Devlin et al.: BERT. NAACL 2019, arXiv:1810.04805, section 3.1: 80 % mask, 10 % another token, 10 % kept.
    Sanh et al.: DistilBERT. 2019, arXiv:1910.01108, and its code: exactly ceil(rate * tokens) targets in a batch.
    Lample & Conneau: Cross-lingual language model pretraining. 2019, arXiv:1901.07291, section 3.3: rare tokens are
    selected more often.
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

MODES = ("fixed", "bernoulli")
# Shares of the selected tokens that are replaced by the mask token and by a random token, as in BERT; the others are
# kept. Without the last two kinds a model would learn nothing about positions that are not masked, yet a fine-tuned
# model sees only those.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
# Independent streams of draws: which positions are selected, what is done with each, and the random token.
_SELECTION, _REPLACEMENT, _TOKEN = 1, 2, 3

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def token_weights(counts: Ints, special: Sequence[int], smoothing: float) -> Floats:
    """Return for each token its weight of being selected, max(count, 1) ** -smoothing; 0 for special tokens.

    Args:
        counts: How often each token occurs, int64 ``[V]``.
        special: Ids of the special tokens.
        smoothing: Exponent, >= 0; 0 gives all tokens the same weight.

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


def select_positions(weights: Floats, count: int, uniform: Floats) -> Bools:
    """Select exactly ``count`` positions without replacement, in proportion to weights.

    Args:
        weights: Weights >= 0, ``[n]``.
        count: Number of positions, >= 0; all positions of positive weight are selected if there are fewer.
        uniform: Uniform numbers in (0, 1), ``[n]``.

    Returns:
        True at the selected positions, bool ``[n]``; never at a weight of 0.
    """
    count = min(count, int((weights > 0).sum()))
    selected = np.zeros(len(weights), np.bool_)
    if count:
        with np.errstate(divide="ignore"):  # a weight of 0 waits infinitely long, as intended
            waiting_times = -np.log(uniform) / weights
        selected[np.argpartition(waiting_times, count - 1)[:count]] = True
    return selected


@dataclass(frozen=True)
class TokenMasker:
    """Turns token ids into masked inputs and targets.

    Args:
        weights: Weight of each token of being selected, float64 ``[V]``; 0 for special tokens, which are never selected
            and never put in place of another token.
        mask_id: Id of the mask token.
        rate: Share of the tokens that are targets, in [0, 1).
        seed: Seed of the draws.
        is_fixed: Select exactly ceil(rate * tokens) positions by their weights; otherwise each token of positive weight
            independently, with probability ``rate``.
        epoch: Draw as in this epoch in every epoch; None for other masks in each.
        by_row: Select the fixed number in each row separately, so that its masks do not depend on the batch.
    """

    weights: Floats
    mask_id: int
    rate: float
    seed: int
    is_fixed: bool
    epoch: int | None = None
    by_row: bool = False

    def __call__(self, ids: Tensor, valid: Tensor, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return masked inputs and targets, int64 ``[b, L]`` each; targets are ``IGNORE`` where nothing was selected.

        Args:
            ids: Token ids of a global batch, int64 ``[b, L]``.
            valid: False at padding, bool ``[b, L]``.
            epoch: The epoch.
            index: Positions of the rows in their split, int64 ``[b]``.
        """
        epoch = epoch if self.epoch is None else self.epoch
        # A number for each position of the split, so that a draw does not depend on where the row is in the batch.
        positions = index.numpy()[:, None] * ids.shape[1] + np.arange(ids.shape[1])
        tokens = ids.numpy()
        selected = self._select(tokens, valid.numpy(), positions, epoch)
        inputs = tokens.copy()
        inputs[selected] = self._replace(tokens[selected], positions[selected], epoch)
        return torch.from_numpy(inputs), torch.from_numpy(np.where(selected, tokens, IGNORE))

    def _select(self, tokens: Ints, valid: Bools, positions: Ints, epoch: int) -> Bools:
        uniform = self._uniform(epoch, positions.reshape(-1), _SELECTION).reshape(positions.shape)
        weights = self.weights[tokens] * valid
        if not self.is_fixed:
            return (uniform < self.rate) & (weights > 0)
        groups = [slice(i, i + 1) for i in range(len(tokens))] if self.by_row else [slice(None)]
        return np.concatenate([self._select_fixed(weights[rows], valid[rows], uniform[rows]) for rows in groups])

    def _select_fixed(self, weights: Floats, valid: Bools, uniform: Floats) -> Bools:
        """Select exactly ceil(rate * tokens) positions of some rows together."""
        count = number_of_targets(int(valid.sum()), self.rate)
        return select_positions(weights.reshape(-1), count, uniform.reshape(-1)).reshape(weights.shape)

    def _replace(self, tokens: Ints, positions: Ints, epoch: int) -> Ints:
        """Return the inputs at selected tokens ``[n]``: the mask token, another token, or the token itself."""
        if not len(tokens):
            return tokens
        ordinary = np.flatnonzero(self.weights)
        random_tokens = ordinary[uniform_ints(self.seed, epoch, positions, _TOKEN, len(ordinary))]
        uniform = self._uniform(epoch, positions, _REPLACEMENT)
        replaced = np.where(uniform < MASK_SHARE + RANDOM_SHARE, random_tokens, tokens)
        return np.where(uniform < MASK_SHARE, self.mask_id, replaced)

    def _uniform(self, epoch: int, positions: Ints, stream: int) -> Floats:
        """Return uniform numbers in the open interval (0, 1): neither end, so that their logarithm is finite."""
        return (uniform_ints(self.seed, epoch, positions, stream, MAX_HIGH) + 0.5) / MAX_HIGH
