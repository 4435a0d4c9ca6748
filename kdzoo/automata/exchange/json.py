"""Automata as JSON: initial and stop probabilities, and a list of arcs ``[token, source, target, probability]``."""

import json
from pathlib import Path
from typing import Any

import torch

from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError
from kdzoo.storage.atomic import write_text

FORMAT = "kdzoo-pfa-1"


def write_json(pfa: PFA, path: str | Path) -> None:
    """Write an automaton; every number is restored exactly when it is read."""
    places = pfa.transitions.nonzero().tolist()
    value = {
        "format": FORMAT,
        "n_tokens": pfa.n_tokens,
        "initial": pfa.initial.tolist(),
        "stop": pfa.stop.tolist(),
        "arcs": [[*place, float(pfa.transitions[tuple(place)])] for place in places],
    }
    write_text(Path(path), json.dumps(value) + "\n")


def read_json(path: str | Path) -> PFA:
    """Return the automaton of a JSON file.

    Raises:
        DataError: If the file is missing, is no JSON of this format, or holds no automaton.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: a JSON file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno} is no JSON ({error.msg})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f'{path} is of another format; allowed: an object with "format": "{FORMAT}"')
    try:
        return _pfa(value)
    except KeyError as error:
        raise DataError(f"{path} has no key {error}") from error
    except (TypeError, ValueError, IndexError, RuntimeError, ConfigError) as error:
        raise DataError(f"{path} holds no automaton: {error}") from error


def _pfa(value: dict[str, Any]) -> PFA:
    K = len(value["stop"])
    transitions = torch.zeros(value["n_tokens"], K, K, dtype=torch.float64)
    for token, source, target, probability in value["arcs"]:
        if min(token, source, target) < 0:
            raise IndexError(f"the arc {[token, source, target]} has a negative number")
        transitions[token, source, target] = probability
    initial, stop = (torch.tensor(value[name], dtype=torch.float64) for name in ("initial", "stop"))
    return PFA.from_parameters(initial, transitions, stop)
