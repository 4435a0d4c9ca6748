"""Kinds of models: what every model of a kind gets, whatever the method."""

from kdzoo.errors import ConfigError
from kdzoo.kinds.automaton import AutomatonKind
from kdzoo.kinds.classifier import Classifier
from kdzoo.kinds.encoder import EncoderKind
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.language_model import LanguageModelKind
from kdzoo.kinds.masked_lm import MaskedLMKind
from kdzoo.kinds.poison import PoisonedSetKind
from kdzoo.kinds.synthetic_set import SyntheticSetKind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Classifier(),
        LanguageModelKind(),
        MaskedLMKind(),
        EncoderKind(),
        AutomatonKind(),
        SyntheticSetKind(),
        PoisonedSetKind(),
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
    "MaskedLMKind",
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
