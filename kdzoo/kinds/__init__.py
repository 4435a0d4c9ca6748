"""Kinds of models: how models of one sort are checked, measured, plotted and exported, and trained without a teacher.

The kind of a model follows from the model and the data (:func:`kind_of`). A user-defined kind is a class derived from
:class:`Kind` and a file in the config group ``kind``; ``kdzoo kind=NAME`` then uses it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.kinds.adversarial import AdversarialAutoencoderKind, AdversarialKind, VAEGANKind
from kdzoo.kinds.autoencoder import AutoencoderKind
from kdzoo.kinds.automaton import AutomatonKind
from kdzoo.kinds.classifier import ClassifierKind
from kdzoo.kinds.encoder import EncoderKind
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.language_model import LanguageModelKind
from kdzoo.kinds.masked_lm import MaskedLMKind
from kdzoo.kinds.poison import PoisonedSetKind
from kdzoo.kinds.protocols import CountsParameters, MeasuresQuickly
from kdzoo.kinds.synthetic_set import SyntheticSetKind

# In this order: a model that matches several kinds is of the first one, and an automaton is a language model as well.
# The classifier is last, because any module may be one.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        AutomatonKind(),
        PoisonedSetKind(),
        SyntheticSetKind(),
        AdversarialKind(),
        VAEGANKind(),
        AdversarialAutoencoderKind(),
        GraphicalModelKind(),
        AutoencoderKind(),
        MaskedLMKind(),
        EncoderKind(),
        LanguageModelKind(),
        ClassifierKind(),
    )
}

__all__ = [
    "KINDS",
    "AdversarialAutoencoderKind",
    "AdversarialKind",
    "AutoencoderKind",
    "AutomatonKind",
    "ClassifierKind",
    "EncoderKind",
    "GraphicalModelKind",
    "Kind",
    "LanguageModelKind",
    "MaskedLMKind",
    "PoisonedSetKind",
    "SyntheticSetKind",
    "VAEGANKind",
    "check_supported",
    "count_parameters",
    "get",
    "kind_of",
    "quick_scores",
]


def get(name: str) -> Kind:
    """Return the packaged kind with a name.

    Raises:
        ConfigError: There is no packaged kind with this name.
    """
    if name not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(sorted(KINDS))}, got {name!r}")
    return KINDS[name]


def kind_of(model: nn.Module, chosen: Kind | None = None, sizes: Mapping[str, Any] | None = None) -> Kind:
    """Return the kind of a model, which follows from the model, and from the data where any module would do.

    Args:
        model: The model.
        chosen: A kind that the user chose, which takes precedence if it matches the model.
        sizes: Sizes of the data that the model is used with.

    Returns:
        The first kind that matches the model exclusively. If none does, the language model for data of strings, whose
        check then says what the model lacks, and the classifier for all other data.
    """
    for kind in (*([chosen] if chosen else []), *KINDS.values()):
        if kind.is_exclusive_match(model):
            return kind
    # Data of strings have tokens, but no padding token; a text classifier reads tokens as well.
    has_strings = sizes is not None and "vocab_size" in sizes and "pad_id" not in sizes
    return KINDS["language_model" if has_strings else "classifier"]


def check_supported(role: str, kind: Kind, supported: Iterable[str], method: str) -> None:
    """Reject a model of a kind that a method does not work with.

    Args:
        role: What the run calls the model, for the message.
        kind: The kind of the model; one that derives from a supported kind is supported as well.
        supported: Names of the kinds that the method works with; empty for any.
        method: Name of the method.

    Raises:
        ConfigError: Names the role, its kind and the supported kinds.
    """
    names = tuple(supported)
    # A supported name may be that of a user-defined kind, which is not in KINDS and has no class here.
    classes = tuple(type(KINDS[name]) for name in names if name in KINDS)
    if names and kind.name not in names and not isinstance(kind, classes):
        needs = " or ".join(KINDS[name].needs if name in KINDS else name for name in names)
        raise ConfigError(f"{method} needs {needs} as {role}, got a model of kind {kind.name}")


def quick_scores(kind: Kind, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return metrics of a model that can be computed quickly, at least the kind's score, by name.

    Args:
        kind: The kind of the model.
        model: The model.
        batches: Labelled batches.
    """
    if isinstance(kind, MeasuresQuickly):
        return kind.quick_scores(model, batches)
    return kind.metrics(kind.predict(model, batches))


def count_parameters(kind: Kind, model: nn.Module) -> int:
    """Return the number of a model's parameters, as its kind counts them."""
    if isinstance(kind, CountsParameters):
        return kind.size(model)
    return sum(parameter.numel() for parameter in model.parameters())
