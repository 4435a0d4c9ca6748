"""The text formats of the PAutomaC competition (Verwer, Eyraud & de la Higuera 2014).

- *Strings* (``.train``, ``.test``): a header "number of strings, number of tokens", then one line for each string, with
  its length and its tokens.
- *Solution*: the number of strings, then the probability of each on a separate line.
- *Model*: four sections, each a header and lines "(indices) probability": ``I: (state)``, ``F: (state)``,
  ``S: (state,symbol)`` and ``T: (state,symbol,state)``; what is missing is 0. A state stops with probability F;
  otherwise it emits a symbol with probability S and then moves to the next state with T, so that
  P(a, l | k) = (1 - F[k]) S[k, a] T[k, a, l].
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.automata.exchange.table_size import empty_table
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError, shortened
from kdzoo.storage.atomic import write_text
from kdzoo.text.token_sequences import TokenSequences

_SECTIONS = {"I": "(state)", "F": "(state)", "S": "(state,symbol)", "T": "(state,symbol,state)"}
_ENTRY = re.compile(r"\(([^()]*)\)\s*(\S+)")

# Upper bound of a probability: rounded ones may be a little above 1, and PFA accepts the same deviation.
_MOST = 1 + 1e-6

Table = Mapping[tuple[int, ...], float]


# ---------------------------------------------------------------- strings


def read_strings(path: str | Path) -> tuple[TokenSequences, int]:
    """Return the strings of a train or test file, and the number of tokens S in its header.

    Raises:
        DataError: If the file is missing, its header is wrong, or a line has not as many tokens as it announces.
    """
    lines = _content(path)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty; allowed: a header 'number of strings, number of tokens'")
    if len(header.split()) != 2:
        header.reject(f"is {shortened(header)!r}; allowed: the header 'number of strings, number of tokens'")
    n, n_tokens = (header.integer(text, "the header") for text in header.split())
    tokens: list[int] = []
    lengths: list[int] = []
    for line in lines:
        length, *string = line.split()
        if line.integer(length, "length") != len(string):
            line.reject(f"announces {length} tokens but has {len(string)}; allowed: as many")
        tokens += [line.integer(token, "token", n_tokens) for token in string]
        lengths.append(len(string))
    if len(lengths) != n:
        header.reject(f"announces {n} strings but {len(lengths)} follow; allowed: as many")
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64)), n_tokens


def write_strings(strings: TokenSequences, n_tokens: int, path: str | Path) -> None:
    """Write strings over S tokens as a train or test file.

    Raises:
        DataError: If a token is outside 0..S-1.
    """
    strings.check(n_tokens + 1)
    rows = [" ".join(map(str, [len(string), *string])) for string in strings.to_lists()]
    write_text(Path(path), "\n".join([f"{len(rows)} {n_tokens}", *rows]) + "\n")


# ---------------------------------------------------------------- solutions


def read_solution(path: str | Path) -> Tensor:
    """Return the probabilities of a solution file, float64 ``[n]``.

    Raises:
        DataError: If the file is missing, a line is not a probability, or their number is not the announced one.
    """
    lines = _content(path)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty; allowed: a number of probabilities, then one on each line")
    n = header.integer(header, "the header")
    values = [line.decimal(line, "probability", 0, 1) for line in lines]
    if len(values) != n:
        header.reject(f"announces {n} probabilities but {len(values)} follow; allowed: as many")
    return torch.tensor(values, dtype=torch.float64)


def write_solution(probabilities: Tensor, path: str | Path) -> None:
    """Write the probabilities ``[n]`` of the strings of a test file."""
    rows = [repr(value) for value in probabilities.double().tolist()]
    write_text(Path(path), "\n".join([str(len(rows)), *rows]) + "\n")


# ---------------------------------------------------------------- models


def read_model(path: str | Path, n_tokens: int | None = None) -> PFA:
    """Return the automaton of a model file.

    Args:
        path: The file.
        n_tokens: Number of tokens S; None to take the largest in the file + 1.

    Raises:
        DataError: If the file is missing, a line is neither header nor entry, an entry occurs twice or is out of
            range, a section is missing, or the probabilities of a state do not sum to 1.
    """
    path = Path(path)
    tables = _read_tables(path, n_tokens)
    if not tables["I"]:
        raise DataError(f"{path} has no initial state; allowed: at least one entry in the section I")
    K = _count_states(path, tables)
    # The format does not say how many symbols there are, and the last ones may never occur.
    used = max([0, *(1 + symbol for _, symbol in tables["S"]), *(1 + symbol for _, symbol, _ in tables["T"])])
    S = max(1, used) if n_tokens is None else n_tokens
    filled = partial(_filled, path)
    initial, final = filled(tables["I"], (K,)), filled(tables["F"], (K,))
    # A state first decides whether to stop; S and T are conditional on going on.
    continues = (1 - final)[:, None, None]
    arcs = continues * filled(tables["S"], (K, S))[:, :, None] * filled(tables["T"], (K, S, K))
    try:
        return PFA.from_parameters(initial, arcs.transpose(0, 1), final)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def write_model(pfa: PFA, path: str | Path) -> None:
    """Write an automaton as a model file."""
    initial, transitions, stop = (buffer.cpu() for buffer in (pfa.initial, pfa.transitions, pfa.stop))
    emissions = transitions.sum(2)
    # 0 / 0 of states that always stop and of pairs (symbol, state) that never occur: no entry in the file.
    symbols = (emissions / emissions.sum(0)).nan_to_num()
    targets = (transitions / emissions[:, :, None]).nan_to_num()
    parts = {"I": initial, "F": stop, "S": symbols.T, "T": targets.transpose(0, 1)}
    rows = [row for name, values in parts.items() for row in _section(name, values)]
    write_text(Path(path), "\n".join(rows) + "\n")


def _section(name: str, values: Tensor) -> Iterator[str]:
    """Yield the header and the entries that are not 0; those that are missing mean 0."""
    yield f"{name}: {_SECTIONS[name]}"
    for index in values.nonzero().tolist():
        yield f"\t({','.join(map(str, index))}) {float(values[tuple(index)])!r}"


def _read_tables(path: Path, n_tokens: int | None) -> dict[str, Table]:
    """Return the entries of the four sections by their indices."""
    tables: dict[str, dict[tuple[int, ...], float]] = {}
    name = ""
    for line in _content(path):
        head, _, rest = line.partition(":")
        if head in _SECTIONS and rest.replace(" ", "") == _SECTIONS[head]:
            if head in tables:
                line.reject(f"begins the section {head} again; allowed: once")
            name, tables[head] = head, {}
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None or not name:
            line.reject(
                f"is {shortened(line)!r}; allowed: a header such as 'I: (state)', or '(indices) probability' below one"
            )
        indices = _indices(line, entry[1], name, n_tokens)
        if indices in tables[name]:
            line.reject(f"repeats the entry ({shortened(entry[1])}) of the section {name}; allowed: once")
        tables[name][indices] = line.decimal(entry[2], "probability", 0, _MOST)
    missing = [section for section in _SECTIONS if section not in tables]
    if missing:
        raise DataError(f"{path} has no section {missing[0]}; allowed: the sections {', '.join(_SECTIONS)}")
    return dict(tables)


def _indices(line: Line, text: str, name: str, n_tokens: int | None) -> tuple[int, ...]:
    """Return the indices of an entry, of which the second is a symbol."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != _SECTIONS[name].count(",") + 1:
        line.reject(f"has the indices ({shortened(text)}); allowed in the section {name}: {_SECTIONS[name]}")
    # (state, symbol, state): the number of states follows from the file, see _count_states.
    bounds = (None, n_tokens, None)
    return tuple(line.integer(part, "index", bound) for part, bound in zip(parts, bounds, strict=False))


def _count_states(path: Path, tables: dict[str, Table]) -> int:
    """Return the number of states, each of which must have a final probability or a symbol."""
    # Sets, not a maximum: a typing error such as state 99999999 must not allocate an array of that size.
    described = {indices[0] for name in "FS" for indices in tables[name]}
    sources = {indices[0] for name in "IT" for indices in tables[name]}
    mentioned = described | sources | {target for _, _, target in tables["T"]}
    missing = next(state for state in range(len(described) + 1) if state not in described)
    if missing <= max(mentioned):
        raise DataError(f"{path} mentions state {max(mentioned)}, but state {missing} has no entry in F or S")
    return len(described)


def _filled(path: Path, table: Table, shape: tuple[int, ...]) -> Tensor:
    """Return the entries as a float64 array."""
    values = empty_table(path, *shape)
    if table:
        values[tuple(torch.tensor(list(table)).T)] = torch.tensor(list(table.values()), dtype=torch.float64)
    return values


def _content(path: Any) -> Iterator[Line]:
    """Yield the lines that are not empty."""
    return (line for line in read_lines(path) if line)
