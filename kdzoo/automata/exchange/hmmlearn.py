"""Automata as hidden Markov models with the matrices of hmmlearn's CategoricalHMM (and of Ctrl-G), and back.

A hidden Markov model never stops: the end of a string is token S, which only the last state emits, in every step from
there on.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from kdzoo.automata.pfa import PFA, TOLERANCE
from kdzoo.errors import ConfigError

# Largest distance of two distributions over next states that are treated as equal: rounding errors of a division.
_SAME = 1e-12


class HMM(NamedTuple):
    """Attributes of the same names in hmmlearn, float64; H hidden states, V = S + 1 tokens.

    Attributes:
        startprob_: Distribution of the first state ``[H]``.
        transmat_: Distribution of the next state, a row for each state ``[H, H]``.
        emissionprob_: Distribution of the token that each state emits ``[H, V]``.
    """

    startprob_: npt.NDArray[np.float64]
    transmat_: npt.NDArray[np.float64]
    emissionprob_: npt.NDArray[np.float64]


def to_hmm(pfa: PFA) -> HMM:
    """Return an automaton as a hidden Markov model of the same strings, each followed by the end token.

    In a hidden Markov model the next state does not depend on the emitted token. A state of the automaton therefore
    becomes one hidden state for each different distribution over next states that its tokens have: K in total if the
    automaton is a hidden Markov model itself, otherwise at most K S, and one more for the end.

    Example:
        >>> to_hmm(PFA.from_parameters([1.0], [[[0.75]]], [0.25])).transmat_.tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    tokens_of, rows = _split_by_targets(pfa)
    weights = torch.tensor([float(pfa.emissions[k, tokens].sum()) for k, tokens in tokens_of], dtype=torch.float64)
    owner = torch.tensor([k for k, _ in tokens_of], dtype=torch.int64)
    H = len(tokens_of) + 1
    # Entering a hidden state already decides that one of its tokens is emitted next; entering the last one decides
    # that the string stops. Hence the weights of the automaton's choices are in the transitions.
    entered = torch.cat([torch.nn.functional.one_hot(owner, pfa.states).double() * weights[:, None], pfa.stop[None]]).T
    emissions = torch.zeros(H, pfa.vocab_size, dtype=torch.float64)
    for index, (k, tokens) in enumerate(tokens_of):
        emissions[index, tokens] = pfa.emissions[k, tokens] / weights[index]
    emissions[-1, -1] = 1
    transitions = torch.cat([rows @ entered, torch.eye(H, dtype=torch.float64)[-1:]])
    return HMM((pfa.initial @ entered).numpy(), transitions.numpy(), emissions.numpy())


def from_hmm(startprob: Any, transmat: Any, emissionprob: Any) -> PFA:
    """Return the automaton of a hidden Markov model whose last token S ends a string.

    Args:
        startprob: Distribution of the first state ``[H]``.
        transmat: Distribution of the next state, a row for each state ``[H, H]``.
        emissionprob: Distribution of the token that each state emits ``[H, S + 1]``.

    Raises:
        ConfigError: If a shape does not fit, or a distribution does not sum to 1.

    Example:
        >>> pfa = from_hmm(*to_hmm(PFA.from_parameters([1.0], [[[0.75]]], [0.25])))
        >>> pfa.next_log_probs(pfa.initial_state(1)).exp()
        tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    start, moves, emissions = (
        torch.as_tensor(matrix, dtype=torch.float64) for matrix in (startprob, transmat, emissionprob)
    )
    H = len(start)
    if moves.shape != (H, H) or emissions.ndim != 2 or emissions.shape[0] != H or emissions.shape[1] < 2:
        raise ConfigError(
            f"transmat must be [{H}, {H}] and emissionprob [{H}, S + 1] with startprob [{H}], "
            f"got {list(moves.shape)} and {list(emissions.shape)}"
        )
    # PFA checks the other sums. The row of a state that only emits the end would vanish from the automaton unchecked.
    off = ((moves.sum(1) - 1).abs() > TOLERANCE).nonzero()
    if len(off):
        raise ConfigError(f"row {int(off[0])} of transmat must sum to 1, got {float(moves[off[0, 0]].sum())}")
    return PFA.from_parameters(start, emissions[:, :-1].T[:, :, None] * moves, emissions[:, -1])


def _split_by_targets(pfa: PFA) -> tuple[list[tuple[int, list[int]]], torch.Tensor]:
    """Return, for each hidden state but the last, its state and tokens, and its distribution over next states."""
    tokens_of: list[tuple[int, list[int]]] = []
    rows: list[torch.Tensor] = []
    for k in range(pfa.states):
        first = len(rows)
        for token in pfa.transitions[:, k].sum(1).nonzero().flatten().tolist():
            row = pfa.transitions[token, k] / pfa.transitions[token, k].sum()
            same = [index for index in range(first, len(rows)) if (rows[index] - row).abs().max() <= _SAME]
            if same:
                tokens_of[same[0]][1].append(token)
            else:
                tokens_of.append((k, [token]))
                rows.append(row)
    return tokens_of, torch.stack(rows) if rows else torch.zeros(0, pfa.states, dtype=torch.float64)
