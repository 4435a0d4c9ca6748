r"""Spectral learning of weighted automata from the Hankel matrix of substring statistics.

Notation: points i of the strings, prefixes u, suffixes v, tokens a; f(w) the probability of a string. With the
indicators B[i, u] (what precedes point i ends in u, or is u) and F[i, v] (what follows point i begins with v), the
Hankel matrices are H = B'F over all points and H_a = B[i]'F[j] over the edges (i, j, a). From H = U S W' of rank r:
A_a = S^-1 U' H_a W. The sums over all continuations are undone by (I - A), A the sum of all A_a.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from kdzoo.automata.prefix_tree import prefix_tree
from kdzoo.core.validation import choice, integer, probability
from kdzoo.text.token_sequences import TokenSequences

KINDS = ("factor", "prefix")


@dataclass(frozen=True, eq=False)
class WeightedAutomaton:
    """A weighted automaton as a language model; its weights may be negative, so predictions are floored.

    The prediction after a prefix is max(weight, 0) of each symbol, normalised, mixed with the share ``floor`` of the
    uniform distribution; the probability of a string is the product of these, a proper distribution.

    Args:
        initial: ``[r]``.
        transitions: ``[S, r, r]``.
        final: Weights of the end ``[r]``.
        floor: Share of the uniform distribution, in [0, 1).
    """

    initial: Tensor
    transitions: Tensor
    final: Tensor
    floor: float = 1e-3

    @property
    def vocab_size(self) -> int:
        """Number of symbols V."""
        return len(self.transitions) + 1

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return self.initial.numel() + self.transitions.numel() + self.final.numel()

    @property
    def rank(self) -> int:
        """Number of dimensions r."""
        return len(self.initial)

    def weight(self, strings: TokenSequences) -> Tensor:
        """Return the weight of each string ``[n]`` as the automaton gives it: not a probability, maybe negative."""
        state = self.initial.expand(len(strings), -1)
        tokens = strings.padded(0)
        for place in range(tokens.shape[1]):
            going = (place < strings.lengths)[:, None]
            state = torch.where(going, self._advance(state, tokens[:, place]), state)
        return state @ self.final

    def initial_state(self, n: int) -> Tensor:
        """Return the state before the first token, n times ``[n, r]``."""
        return _scaled(self.initial).expand(n, -1)

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        """Return the states ``[n, r]``, up to a positive factor, after one more token, int64 ``[n]``."""
        going = (token < self.vocab_size - 1)[:, None]
        return torch.where(going, _scaled(self._advance(state, token.clamp(max=self.vocab_size - 2))), 0.0)

    def next_log_probs(self, state: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol ``[n, V]``."""
        mass = self._mass
        symbols = torch.cat([self.transitions @ mass, self.final[None]])  # [V, r]
        weights = (state @ symbols.T).nan_to_num(0.0).clamp_min(0)
        total = weights.sum(1, keepdim=True)
        uniform = torch.full_like(weights, 1 / self.vocab_size)
        probs = torch.where(total > 0, weights / total, uniform)
        return ((1 - self.floor) * probs + self.floor * uniform).log()

    def hidden(self, state: Tensor) -> Tensor:
        """Return the state itself ``[n, r]``."""
        return state

    def log_prob(self, strings: TokenSequences) -> Tensor:
        """Return the log-probability of each string ``[n]`` under the floored predictions, in nats."""
        state, total = self.initial_state(len(strings)), self.initial.new_zeros(len(strings))
        symbols = strings.padded(self.vocab_size - 1)
        for place in range(symbols.shape[1] + 1):
            going = place <= strings.lengths
            symbol = (
                symbols[:, place]
                if place < symbols.shape[1]
                else torch.full_like(strings.lengths, len(self.transitions))
            )
            logs = self.next_log_probs(state).gather(1, symbol[:, None])[:, 0]
            total = total + torch.where(going, logs, 0.0)
            state = self.step(state, symbol)
        return total

    @property
    def _mass(self) -> Tensor:
        """Weight of all continuations of each dimension ``[r]``."""
        identity = torch.eye(self.rank, dtype=self.initial.dtype)
        return torch.linalg.lstsq(identity - self.transitions.sum(0), self.final[:, None]).solution[:, 0]

    def _advance(self, state: Tensor, token: Tensor) -> Tensor:
        result = torch.empty_like(state)
        for one in token.unique():
            rows = token == one
            result[rows] = state[rows] @ self.transitions[one]
        return result


@dataclass(frozen=True, eq=False)
class Hankel:
    """Statistics of a basis of prefixes and suffixes, and their decomposition, from which any rank can be taken."""

    kind: str
    left: Tensor
    values: Tensor
    right: Tensor
    shifted: Tensor
    row: Tensor
    column: Tensor

    def automaton(self, rank: int, floor: float = 1e-3) -> WeightedAutomaton:
        """Return the weighted automaton of a rank; a rank beyond the numerical one is lowered to it."""
        integer("rank", rank)
        rank = min(rank, int((self.values > 1e-10 * self.values[0]).sum()))
        project = self.left[:, :rank].T / self.values[:rank, None]
        right = self.right[:, :rank]
        transitions = project @ self.shifted @ right
        undo = torch.eye(rank, dtype=right.dtype) - transitions.sum(0)
        initial = self.row @ right
        final = undo @ (project @ self.column)
        return WeightedAutomaton(initial @ undo if self.kind == "factor" else initial, transitions, final, floor)


def hankel(
    strings: TokenSequences, vocab_size: int, *, kind: str = "factor", basis: int = 300, max_length: int = 6
) -> Hankel:
    """Return the decomposed Hankel matrices of the most frequent prefixes and suffixes.

    Args:
        strings: The strings.
        vocab_size: V.
        kind: What the statistics count: "factor" occurrences within strings, "prefix" beginnings of strings.
        basis: Greatest number of prefixes and of suffixes.
        max_length: Greatest length of the substrings among them.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If a token is outside the alphabet.

    References:
        Hsu, Kakade and Zhang 2009; Bailly, Denis and Ralaivola 2009; the statistics of Balle, Carreras, Luque and
        Quattoni 2014, "Spectral learning of weighted automata", Machine Learning 96, section 5.
    """
    choice("kind", kind, KINDS)
    integer("basis", basis)
    integer("max_length", max_length)
    strings.check(vocab_size)
    after = _most_frequent(*_windows(strings, vocab_size - 1, max_length, forward=True), basis)
    if kind == "factor":
        before = _most_frequent(*_windows(strings, vocab_size - 1, max_length, forward=False), basis)
    else:
        before = _most_frequent(torch.arange(strings.n_prefixes), prefix_tree(strings).nodes, basis)
    B, F = (_indicator(strings.n_prefixes, *one) for one in (before, after))
    source, target, token = (one.numpy() for one in strings.edges())
    shifted = [(B[source[token == a]].T @ F[target[token == a]]).toarray() for a in range(vocab_size - 1)]
    matrix = (B.T @ F).toarray() / len(strings)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    parts = (left, values, right.T, np.stack(shifted) / len(strings), matrix[0], matrix[:, 0])
    return Hankel(kind, *(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def spectral(
    strings: TokenSequences,
    vocab_size: int,
    *,
    held_out: TokenSequences,
    ranks: Sequence[int] = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60),
    kinds: Sequence[str] = KINDS,
    basis: int = 300,
    max_length: int = 6,
    floors: Sequence[float] = (1e-2, 1e-3, 1e-4),
) -> WeightedAutomaton:
    """Return the weighted automaton whose kind of statistics, rank and floor suit held-out strings best.

    Args:
        strings: The strings to learn from.
        vocab_size: V.
        held_out: The strings to choose by, at least one.
        ranks: Ranks to try.
        kinds: Kinds of statistics to try; see :func:`hankel`.
        basis: See :func:`hankel`.
        max_length: See :func:`hankel`.
        floors: Floors to try; see :class:`WeightedAutomaton`.
    """
    candidates = []
    for kind in kinds:
        matrices = hankel(strings, vocab_size, kind=kind, basis=basis, max_length=max_length)
        usable = sorted({min(rank, len(matrices.values)) for rank in ranks})
        candidates += [matrices.automaton(rank, probability("floor", floor)) for rank in usable for floor in floors]
    return max(candidates, key=lambda one: float(one.log_prob(held_out).sum()))


def _windows(strings: TokenSequences, n_tokens: int, longest: int, *, forward: bool) -> tuple[Tensor, Tensor]:
    """Return points, and as numbers the substrings of 0..longest tokens that begin (or end) at them.

    The empty substring has the number 0. A substring that reaches beyond its string is left out.
    """
    ends = strings.last_prefixes() if forward else strings.first_prefixes()
    room = (torch.arange(strings.n_prefixes) - ends.repeat_interleave(strings.lengths + 1)).abs()
    token_at = torch.zeros(strings.n_prefixes, dtype=torch.int64)
    source, target, token = strings.edges()
    token_at[source if forward else target] = token + 1
    points, code = torch.arange(strings.n_prefixes), torch.zeros(strings.n_prefixes, dtype=torch.int64)
    found = [(points, code)]
    for length in range(1, longest + 1):
        keep = room[points] >= length
        points, code = points[keep], code[keep]
        step = (length - 1) if forward else -(length - 1)
        code = code * (n_tokens + 1) + token_at[points + step]
        found.append((points, code))
    return torch.cat([one for one, _ in found]), torch.cat([code for _, code in found])


def _most_frequent(points: Tensor, codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the points and columns of the most frequent codes; the code 0 always has column 0."""
    values, inverse, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    counts[0] = counts.max() + 1  # code 0 is the least
    order = counts.argsort(descending=True, stable=True)[:most]
    column = torch.full((len(values),), -1)
    column[order] = torch.arange(len(order))
    chosen = column[inverse] >= 0
    return points[chosen], column[inverse][chosen]


def _indicator(rows: int, points: Tensor, columns: Tensor) -> Any:
    width = int(columns.max()) + 1
    return csr_matrix((np.ones(len(points)), (points.numpy(), columns.numpy())), shape=(rows, width))


def _scaled(state: Tensor) -> Tensor:
    """Return states ``[..., r]`` with the sum of absolute values 1; zeros stay zeros."""
    return state / state.abs().sum(-1, keepdim=True).clamp_min(1e-300)
