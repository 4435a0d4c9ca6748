"""Automata as JSON: initial and stop probabilities, and a list of arcs ``[token, source, target, probability]``."""

import json
from pathlib import Path
from typing import Any

import torch

from kdzoo.automata.exchange.table_size import empty_table
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError, first_line
from kdzoo.storage.atomic import write_text

# Name and version of the format, so that a later one can be told apart.
FORMAT = "kdzoo-pfa-1"


def write_json(pfa: PFA, path: str | Path) -> None:
    """Write an automaton as JSON; reading restores every number exactly, as JSON holds all digits of a float."""
    # Transitions are sparse after training: a list of arcs is shorter than the array.
    indices = pfa.transitions.nonzero().tolist()
    value = {
        "format": FORMAT,
        "n_tokens": pfa.n_tokens,
        "initial": pfa.initial.tolist(),
        "stop": pfa.stop.tolist(),
        "arcs": [[*index, float(pfa.transitions[tuple(index)])] for index in indices],
    }
    write_text(Path(path), json.dumps(value) + "\n")


def read_json(path: str | Path) -> PFA:
    """Return the automaton of a JSON file.

    Raises:
        DataError: If the file is missing, is not JSON of this format, or does not describe a valid automaton.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a JSON file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno} is not valid JSON ({error.msg})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error
    except (RecursionError, ValueError) as error:  # brackets within brackets, or a number of thousands of digits
        raise DataError(f"{path} cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f'{path} has another format; allowed: an object with "format": "{FORMAT}"')
    try:
        return _pfa(path, value)
    except DataError:  # it is a ValueError
        raise
    except KeyError as error:
        raise DataError(f"{path} has no key {error}") from error
    except (TypeError, ValueError, IndexError, RuntimeError, ConfigError) as error:
        raise DataError(f"{path} does not describe a valid automaton: {first_line(error)}") from error


def _pfa(path: str | Path, value: dict[str, Any]) -> PFA:
    K = len(value["stop"])
    transitions = empty_table(path, value["n_tokens"], K, K)
    for token, source, target, probability in value["arcs"]:
        # Torch would count a negative index from the end.
        if min(token, source, target) < 0:
            raise IndexError(f"the arc {[token, source, target]} has a negative index")
        transitions[token, source, target] = probability
    initial, stop = (torch.tensor(value[name], dtype=torch.float64) for name in ("initial", "stop"))
    return PFA.from_parameters(initial, transitions, stop)
