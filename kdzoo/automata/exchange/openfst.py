"""Automata as acceptors in the text format of AT&T's FSM library and of OpenFst (``fstcompile --acceptor``).

An arc is a line "source target label weight", a final state a line "state weight"; weights are negative natural
logarithms of probabilities, and the source of the first line is the initial state. Label 0 is reserved for the
empty string, so token a has the label a + 1. If an automaton may begin in several states, an additional last state
leads to them with label 0.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.automata.exchange.table_size import empty_table
from kdzoo.automata.labels import token_names
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError
from kdzoo.storage.atomic import write_text

EPSILON = "<eps>"

# Label of a final state in the list of arcs, whose target is the state itself.
_STOP = -1

# Lower bound of a weight: probabilities rounded up to a little above 1 have a weight a little below 0.
_LEAST_WEIGHT = -1e-6


class _Arc(NamedTuple):
    line: Line
    source: int
    target: int
    label: int
    weight: float


def write_openfst(
    pfa: PFA, path: str | Path, *, symbols_path: str | Path | None = None, symbols: Sequence[str] | None = None
) -> None:
    """Write an automaton as an acceptor, with numbers as labels.

    Args:
        pfa: The automaton.
        path: The file.
        symbols_path: File for a symbol table for ``fstcompile --isymbols``; None to write no table.
        symbols: Names of the S tokens in that table, without white space; None for their numbers.

    Raises:
        ConfigError: If a name contains white space, or the number of names is not S.
    """
    write_text(Path(path), "\n".join(_rows(pfa)) + "\n")
    if symbols_path is not None:
        names = token_names(symbols, pfa.n_tokens)
        wrong = [name for name in names if name.split() != [name]]
        if wrong:
            raise ConfigError(f"symbols must not contain white space, got {wrong[0]!r}")
        table = [f"{name}\t{label}" for label, name in enumerate([EPSILON, *names])]
        write_text(Path(symbols_path), "\n".join(table) + "\n")


def read_openfst(path: str | Path, n_tokens: int | None = None) -> PFA:
    """Return the automaton of an acceptor with numbers as labels, such as :func:`write_openfst` writes.

    Args:
        path: The file.
        n_tokens: Number of tokens S; None to take the largest label.

    Raises:
        DataError: If the file is missing, a line is neither an arc nor a final state, the label 0 does not start at
            the initial state, or the probabilities of a state do not sum to 1.
    """
    arcs = [_arc(line, n_tokens) for line in read_lines(path) if line]
    if not arcs:
        raise DataError(f"{path} has no arcs and no final states; allowed: at least one")
    first = arcs[0].source
    K = 1 + max(max(arc.source, arc.target) for arc in arcs)
    S = max(1, *(arc.label for arc in arcs)) if n_tokens is None else n_tokens
    transitions = empty_table(path, S, K, K)
    initial, stop = torch.zeros(2, K, dtype=torch.float64)
    for line, source, target, label, weight in arcs:
        if label == _STOP:
            # Added up: parallel arcs of the same label are alternatives.
            stop[source] += math.exp(-weight)
        elif label:
            transitions[label - 1, source, target] += math.exp(-weight)
        elif source == first != target:
            initial[target] += math.exp(-weight)
        else:
            line.reject(f"has the label 0 from {source} to {target}; allowed: from the initial state {first} to others")
    # An additional initial state carries the initial distribution and is removed again.
    remaining = torch.ones(K, dtype=torch.bool)
    if initial.any():
        remaining[first] = False
        if stop[first] or transitions[:, first].any() or transitions[:, :, first].any():
            raise DataError(f"{path} has both label 0 and other labels at its initial state {first}; allowed: one kind")
    else:
        initial[first] = 1
    try:
        return PFA.from_parameters(initial[remaining], transitions[:, remaining][:, :, remaining], stop[remaining])
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def _rows(pfa: PFA) -> Iterator[str]:
    """Yield the lines of the file."""
    begins = pfa.initial.nonzero().flatten().tolist()
    if len(begins) > 1:
        yield from (f"{pfa.states} {k} 0 {_weight(float(pfa.initial[k]))}" for k in begins)
    # OpenFst takes the source of the first line as the initial state, so its lines come first.
    order = [begins[0], *(k for k in range(pfa.states) if k != begins[0])]
    by_source = pfa.transitions.permute(1, 0, 2)
    for source in order:
        for token, target in by_source[source].nonzero().tolist():
            yield f"{source} {target} {token + 1} {_weight(float(by_source[source, token, target]))}"
        if pfa.stop[source] > 0:
            yield f"{source} {_weight(float(pfa.stop[source]))}"


def _weight(probability: float) -> str:
    # Adding 0.0 turns -0.0, the weight of a certain arc, into 0.0.
    return repr(-math.log(probability) + 0.0)


def _arc(line: Line, n_tokens: int | None) -> _Arc:
    """Return the arc or the final state of a line."""
    fields = line.split()
    if len(fields) > 4:
        line.reject(f"has {len(fields)} fields; allowed: 'source target label weight' or 'state weight'")
    # The format lets a weight of 0 be left out.
    weight = line.decimal(fields[-1], "weight", _LEAST_WEIGHT) if len(fields) in (2, 4) else 0.0
    source = line.integer(fields[0], "state")
    if len(fields) < 3:
        return _Arc(line, source, source, _STOP, weight)
    label = line.integer(fields[2], "label", None if n_tokens is None else n_tokens + 1)
    return _Arc(line, source, line.integer(fields[1], "state"), label, weight)
