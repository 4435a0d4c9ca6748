r"""Spectral learning of weighted automata from the Hankel matrix of substring statistics.

Notation: positions i in the strings (before, between and after tokens), basis prefixes u, basis suffixes v, tokens a.
With the indicators B[i, u] (the tokens before position i end in u, or are u) and F[i, v] (the tokens after position i
begin with v), the Hankel matrices are H = B'F over all positions and H_a = B[i]'F[j] over the edges (i, j, a). From
H = U S W' of rank r follows A_a = S^-1 U' H_a W. The statistics sum over all continuations; multiplication with
(I - A), where A is the sum of all A_a, removes that sum.
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

# What is counted: occurrences within strings, or beginnings of strings. Neither is always better, so both are tried.
KINDS = ("factor", "prefix")

# Singular values below this share of the largest are rounding noise, and dividing by them would amplify it.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class WeightedAutomaton:
    """A weighted automaton as a language model; its weights may be negative, so predictions have a floor.

    The prediction after a prefix is max(weight, 0) of each symbol, normalised and mixed with the share ``floor`` of the
    uniform distribution. The probability of a string is the product of these predictions, a proper distribution.

    Args:
        initial: Initial weights ``[r]``.
        transitions: Transition weights ``[S, r, r]``.
        final: Final weights ``[r]``.
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
        """Return the weight of each string ``[n]``: an estimate of its probability, which may be negative."""
        state = self.initial.expand(len(strings), -1)
        tokens = strings.padded(0)
        for position in range(tokens.shape[1]):
            active = (position < strings.lengths)[:, None]
            state = torch.where(active, self._advance(state, tokens[:, position]), state)
        return state @ self.final

    def initial_state(self, n: int) -> Tensor:
        """Return the state before the first token, n times ``[n, r]``."""
        return _scaled(self.initial).expand(n, -1)

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        """Return the states ``[n, r]``, up to a positive factor, after one more token, int64 ``[n]``."""
        # Scaled after each step: predictions do not depend on the scale, and long strings would underflow.
        active = (token < self.vocab_size - 1)[:, None]
        return torch.where(active, _scaled(self._advance(state, token.clamp(max=self.vocab_size - 2))), 0.0)

    def next_log_probs(self, state: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol ``[n, V]``."""
        mass = self._mass
        symbols = torch.cat([self.transitions @ mass, self.final[None]])  # [V, r]
        weights = (state @ symbols.T).nan_to_num(0.0).clamp_min(0)
        # If no symbol has a positive weight the automaton says nothing, and the prediction is uniform.
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
        # One position more than the longest string has tokens: that of its end.
        for position in range(symbols.shape[1] + 1):
            active = position <= strings.lengths
            symbol = (
                symbols[:, position]
                if position < symbols.shape[1]
                else torch.full_like(strings.lengths, len(self.transitions))
            )
            logs = self.next_log_probs(state).gather(1, symbol[:, None])[:, 0]
            total = total + torch.where(active, logs, 0.0)
            state = self.step(state, symbol)
        return total

    @property
    def _mass(self) -> Tensor:
        """Total weight of all continuations from each dimension ``[r]``."""
        # Least squares, as I - A may be singular for a rank that does not suit the data.
        identity = torch.eye(self.rank, dtype=self.initial.dtype)
        return torch.linalg.lstsq(identity - self.transitions.sum(0), self.final[:, None]).solution[:, 0]

    def _advance(self, state: Tensor, token: Tensor) -> Tensor:
        result = torch.empty_like(state)
        for value in token.unique():
            rows = token == value
            result[rows] = state[rows] @ self.transitions[value]
        return result


@dataclass(frozen=True, eq=False)
class Hankel:
    """Statistics of a basis of p prefixes and s suffixes, and their singular value decomposition, for any rank.

    Args:
        kind: What the statistics count, see :func:`hankel`.
        left: Left singular vectors ``[p, m]``, m = min(p, s).
        values: Singular values ``[m]``, descending.
        right: Right singular vectors ``[s, m]``.
        shifted: Hankel matrix of each token ``[S, p, s]``.
        row: Row of the empty prefix ``[s]``.
        column: Column of the empty suffix ``[p]``.
    """

    kind: str
    left: Tensor
    values: Tensor
    right: Tensor
    shifted: Tensor
    row: Tensor
    column: Tensor

    def automaton(self, rank: int, floor: float = 1e-3) -> WeightedAutomaton:
        """Return the weighted automaton of a rank >= 1; the numerical rank of the matrix is an upper bound."""
        integer("rank", rank)
        rank = min(rank, int((self.values > RANK_TOLERANCE * self.values[0]).sum()))
        project = self.left[:, :rank].T / self.values[:rank, None]
        right = self.right[:, :rank]
        transitions = project @ self.shifted @ right
        # Suffix statistics count all continuations of v; those of factors count all that precedes u as well.
        difference = torch.eye(rank, dtype=right.dtype) - transitions.sum(0)
        initial = self.row @ right
        final = difference @ (project @ self.column)
        return WeightedAutomaton(initial @ difference if self.kind == "factor" else initial, transitions, final, floor)


def hankel(
    strings: TokenSequences, vocab_size: int, *, kind: str = "factor", basis: int = 300, max_length: int = 6
) -> Hankel:
    """Return the decomposed Hankel matrices of the most frequent prefixes and suffixes.

    Args:
        strings: The strings.
        vocab_size: Number of symbols V with the end token.
        kind: What the statistics count: "factor" for occurrences within strings, "prefix" for beginnings of strings.
        basis: Maximum number of prefixes and of suffixes, >= 1.
        max_length: Maximum length of the substrings among them, >= 1.

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
    B, F = (_indicator(strings.n_prefixes, *places) for places in (before, after))
    source, target, token = (column.numpy() for column in strings.edges())
    shifted = [(B[source[token == a]].T @ F[target[token == a]]).toarray() for a in range(vocab_size - 1)]
    # Dense from here on: a basis of 300 is small, and the sparse products above were the expensive part.
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
    """Return the weighted automaton whose statistics, rank and floor give held-out strings the highest likelihood.

    Args:
        strings: The strings to learn from.
        vocab_size: Number of symbols V with the end token.
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
    return max(candidates, key=lambda candidate: float(candidate.log_prob(held_out).sum()))


def _windows(strings: TokenSequences, n_tokens: int, longest: int, *, forward: bool) -> tuple[Tensor, Tensor]:
    """Return positions, and the codes of the substrings of 0..longest tokens that begin (or end) there.

    The empty substring has the code 0. A substring that would reach beyond its string is left out.
    """
    ends = strings.last_prefixes() if forward else strings.first_prefixes()
    room = (torch.arange(strings.n_prefixes) - ends.repeat_interleave(strings.lengths + 1)).abs()
    token_at = torch.zeros(strings.n_prefixes, dtype=torch.int64)
    source, target, token = strings.edges()
    # Digits 1..S, so that substrings of different lengths have different codes.
    token_at[source if forward else target] = token + 1
    positions, code = torch.arange(strings.n_prefixes), torch.zeros(strings.n_prefixes, dtype=torch.int64)
    result = [(positions, code)]
    for length in range(1, longest + 1):
        fits = room[positions] >= length
        positions, code = positions[fits], code[fits]
        step = (length - 1) if forward else -(length - 1)
        code = code * (n_tokens + 1) + token_at[positions + step]
        result.append((positions, code))
    return torch.cat([positions for positions, _ in result]), torch.cat([code for _, code in result])


def _most_frequent(positions: Tensor, codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the positions and columns of the most frequent codes; the code 0 always has column 0."""
    values, inverse, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    # The empty substring has to be in the basis, first: its row and column are those of whole strings. It has the
    # smallest code, so it is the first of the sorted values.
    counts[0] = counts.max() + 1
    order = counts.argsort(descending=True, stable=True)[:most]
    column = torch.full((len(values),), -1)
    column[order] = torch.arange(len(order))
    chosen = column[inverse] >= 0
    return positions[chosen], column[inverse][chosen]


def _indicator(rows: int, positions: Tensor, columns: Tensor) -> Any:
    """Return the sparse matrix with a 1 at each position and column."""
    width = int(columns.max()) + 1
    return csr_matrix((np.ones(len(positions)), (positions.numpy(), columns.numpy())), shape=(rows, width))


def _scaled(state: Tensor) -> Tensor:
    """Return states ``[..., r]`` with the sum of absolute values 1; zeros stay zeros."""
    return state / state.abs().sum(-1, keepdim=True).clamp_min(1e-300)
