"""Kinds of models: what every model of a kind gets, whatever the method."""

from kdzoo.errors import ConfigError
from kdzoo.kinds.automaton import Automaton
from kdzoo.kinds.classifier import Classifier
from kdzoo.kinds.encoder import Encoder
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.language_model import LanguageModelKind
from kdzoo.kinds.masked_lm import MaskedLM
from kdzoo.kinds.poison import Poison
from kdzoo.kinds.synthetic_set import DataSet

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Classifier(),
        LanguageModelKind(),
        MaskedLM(),
        Encoder(),
        Automaton(),
        DataSet(),
        Poison(),
        GraphicalModelKind(),
    )
}

__all__ = [
    "KINDS",
    "Automaton",
    "Classifier",
    "DataSet",
    "Encoder",
    "GraphicalModelKind",
    "Kind",
    "LanguageModelKind",
    "MaskedLM",
    "Poison",
    "get",
]


def get(name: str) -> Kind:
    """Return the kind of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in KINDS:
        raise ConfigError(f"unknown kind {name!r}; the kinds are {sorted(KINDS)}")
    return KINDS[name]
