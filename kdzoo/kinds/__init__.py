"""Kinds of models: what every model of a kind gets, whatever the method."""

from kdzoo.errors import ConfigError
from kdzoo.kinds.classifier import Classifier
from kdzoo.kinds.kind import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Classifier(),)}

__all__ = ["KINDS", "Classifier", "Kind", "get"]


def get(name: str) -> Kind:
    """Return the kind of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in KINDS:
        raise ConfigError(f"unknown kind {name!r}; the kinds are {sorted(KINDS)}")
    return KINDS[name]
