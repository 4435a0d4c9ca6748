"""Automata in Graphviz's DOT language: one edge for each pair of states, with its tokens below each other.

Labels are rounded. The exact numbers are in additional attributes (``initial`` and ``stop`` of a node, ``tokens`` of an
edge), which Graphviz ignores and :func:`read_dot` reads.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.automata.exchange.table_size import empty_table
from kdzoo.automata.labels import edge_labels, state_label, token_names
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError, shortened
from kdzoo.storage.atomic import write_text

_NODE = re.compile(r'(\d+) \[.*initial="([^"]*)", stop="([^"]*)"\];')
_EDGE = re.compile(r'(\d+) -> (\d+) \[.*tokens="([^"]*)"\];')
_HEAD = re.compile(r"digraph pfa_of_(\d+)_tokens \{")

# Widths in points of an edge of probability 0 and 1: unlikely edges stay visible, likely ones do not hide labels.
_MIN_WIDTH, _MAX_WIDTH = 0.5, 4.0


def to_dot(pfa: PFA, symbols: Sequence[str] | None = None, threshold: float = 0.0) -> str:
    r"""Return an automaton as DOT text; the width of an edge shows its probability.

    Args:
        pfa: The automaton.
        symbols: Names of the S tokens; None for their numbers.
        threshold: Transitions with a smaller probability are left out, in [0, 1).

    Raises:
        ConfigError: If the threshold is out of range, or there are not S names.

    Example:
        >>> print(to_dot(PFA.from_parameters([1.0], [[[0.5]]], [0.5])))
        digraph pfa_of_1_tokens {
          rankdir=LR;
          node [shape=circle];
          0 [label="0\n.50", peripheries=2, penwidth=2, initial="1.0", stop="0.5"];
          0 -> 0 [label="0: .50", penwidth=2.25, tokens="0:0.5"];
        }
    """
    names = token_names(symbols, pfa.n_tokens)
    rows = [f"digraph pfa_of_{pfa.n_tokens}_tokens {{", "  rankdir=LR;", "  node [shape=circle];"]
    for k, (initial, stop) in enumerate(zip(pfa.initial.tolist(), pfa.stop.tolist(), strict=True)):
        look = f"peripheries={1 + (stop > threshold)}, penwidth={1 + (initial > threshold)}"
        rows.append(f'  {k} [label="{_quoted(state_label(k, stop))}", {look}, initial="{initial!r}", stop="{stop!r}"];')
    for edge in edge_labels(pfa, names, threshold):
        # repr has all digits of a float, so that reading gives back the same bits.
        tokens = " ".join(f"{token}:{probability!r}" for token, probability in edge.tokens)
        width = f"{_MIN_WIDTH + (_MAX_WIDTH - _MIN_WIDTH) * edge.probability:.3g}"
        rows.append(
            f'  {edge.source} -> {edge.target} [label="{_quoted(edge.label)}", penwidth={width}, tokens="{tokens}"];'
        )
    return "\n".join([*rows, "}"])


def write_dot(pfa: PFA, path: str | Path, symbols: Sequence[str] | None = None, threshold: float = 0.0) -> None:
    """Write an automaton as a DOT file; see :func:`to_dot`."""
    write_text(Path(path), to_dot(pfa, symbols, threshold) + "\n")


def read_dot(path: str | Path) -> PFA:
    """Return the automaton of a file that :func:`write_dot` wrote with ``threshold=0``.

    DOT files of other origin have no exact probabilities and are rejected.

    Raises:
        DataError: If the file is missing, a line has another form, or the probabilities of a state do not
            sum to 1.
    """
    head, *lines = [line for line in read_lines(path) if line] or [Line.of("", Path(path), 1)]
    start = _HEAD.fullmatch(head)
    if start is None:
        head.reject(f"is {shortened(head)!r}; allowed: 'digraph pfa_of_S_tokens {{', as write_dot writes it")
    nodes: list[list[float]] = []
    edges: list[tuple[Line, re.Match[str]]] = []
    for line in lines:
        if (node := _NODE.fullmatch(line)) is not None:
            if line.integer(node[1], "state") != len(nodes):
                line.reject(f"has state {node[1]}; allowed: {len(nodes)}, the next one")
            nodes.append([line.decimal(text, "probability", 0, 1) for text in node.groups()[1:]])
        elif (edge := _EDGE.fullmatch(line)) is not None:
            edges.append((line, edge))
        elif line not in ("rankdir=LR;", "node [shape=circle];", "}"):
            line.reject(f"is {shortened(line)!r}; allowed: a node with initial and stop, or an edge with tokens")
    if not nodes:
        raise DataError(f"{path} has no states; allowed: at least 1")
    K, S = len(nodes), head.integer(start[1], "the number of tokens")
    transitions = empty_table(path, S, K, K)
    for line, edge in edges:
        source, target = (line.integer(text, "state", K) for text in edge.groups()[:2])
        for entry in edge[3].split():
            token, _, probability = entry.partition(":")
            index = line.integer(token, "token", S), source, target
            transitions[index] = line.decimal(probability, "probability", 0, 1)
    initial, stop = torch.tensor(nodes, dtype=torch.float64).T
    try:
        return PFA.from_parameters(initial, transitions, stop)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def _quoted(text: str) -> str:
    """Return text escaped for a quoted string of DOT."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
