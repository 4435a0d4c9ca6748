"""Copying a teacher's weights into a student with fewer layers."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init.layer_lists import Blocks, base_prefix, find_layers
from kdzoo.layer_init.selection import select_layers

DISTILBERT_FROM_BERT = {
    "embeddings": "embeddings",
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.LayerNorm": "embeddings.LayerNorm",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
    "vocab_transform": "cls.predictions.transform.dense",
    "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
    "vocab_projector": "cls.predictions.decoder",
}
"""What the modules of a DistilBERT are called in a BERT: in the encoder, in a layer, in the masked-language head."""


def copy_layers(
    student: nn.Module, teacher: nn.Module, chosen: str | Sequence[int], *, path: str | None = None
) -> tuple[str, ...]:
    """Copy into a student all that a teacher has for it: layer i from layer chosen[i], the rest by name.

    The rest is every other parameter and buffer: embeddings, final norms, the head. Models of transformers may
    differ in their head, and one of them may have none. Nothing is copied before everything fits. Tied weights stay
    tied, and precision and device stay the student's.

    A DistilBERT takes the weights of a BERT by a table of names. It has no token types: the vector of the first one
    is added to the position table, which makes a copy of all layers exact for texts of one segment. The heads that
    classify differ (tanh in a pooler, ReLU in a `pre_classifier`), so they have no partner; the masked-language heads
    have.

    Args:
        student: The model that is written to.
        teacher: The model that is read.
        chosen: Numbers of the teacher's layers, strictly increasing, as many as the student has; or a name that
            `select_layers` knows.
        path: Dotted path of the list of layers in both; None where `find_layers` finds it.

    Returns:
        Sorted names of the student's parameters and buffers without a partner, which are as they were.

    Raises:
        ConfigError: If the models are of different types other than DistilBERT from BERT, the chosen layers do not
            fit, a partner has another shape, or the layers have no name in common.

    Example:
        >>> from torch import nn
        >>> deep, shallow = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(n))) for n in (4, 2))
        >>> copy_layers(shallow, deep, [1, 3], path="")
        ()
        >>> bool((shallow[1].weight == deep[3].weight).all())
        True

    Source:
        Sanh et al. 2019, "DistilBERT", section 3; the token-type vector is dropped there.
    """
    table = _table(student, teacher)
    ours, theirs = find_layers(student, path), find_layers(teacher, path)
    numbers = select_layers(chosen, len(theirs[1]), len(ours[1]))
    layers = list(zip(_prefixes(*ours), (_prefixes(*theirs)[number] for number in numbers), strict=True))
    head = [("", "")] if base_prefix(teacher) else []
    renamed = [*layers, (base_prefix(student), base_prefix(teacher)), *head]
    sources = dict(_tensors(teacher))
    if table is not None:
        _fold_token_type(sources, base_prefix(teacher))
    pairs: dict[int, tuple[str, Tensor, Tensor]] = {}
    alone: dict[int, str] = {}
    for name, tensor in _tensors(student):
        partner = _partner(name, renamed, table)
        if partner in sources and id(tensor) not in pairs:
            pairs[id(tensor)] = (name, tensor, _fitting(name, tensor, str(partner), sources[str(partner)]))
        else:
            alone.setdefault(id(tensor), name)
    inside = tuple(prefix for prefix, _ in layers)
    if not any(name.startswith(inside) for name, _, _ in pairs.values()):
        raise ConfigError(f"layers {ours[0]!r} of the student have no name in common with {theirs[0]!r} of the teacher")
    with torch.no_grad():
        for _, tensor, source in pairs.values():
            tensor.copy_(source)
    return tuple(sorted(name for key, name in alone.items() if key not in pairs))


def _table(student: nn.Module, teacher: nn.Module) -> dict[str, str] | None:
    """Return the teacher's names of the student's modules; None where they are the same."""
    ours, theirs = (getattr(getattr(model, "config", None), "model_type", None) for model in (student, teacher))
    if ours == theirs:
        return None
    if (ours, theirs) == ("distilbert", "bert"):
        return DISTILBERT_FROM_BERT
    raise ConfigError(
        f"student must be of the teacher's type {theirs!r}"
        f"{' or distilbert' if theirs == 'bert' else ''} to take its layers, got {ours!r}"
    )


def _prefixes(path: str, layers: Blocks) -> list[str]:
    """Return what the names in each layer begin with."""
    return [f"{path}.{name}." if path else f"{name}." for name in layers._modules]


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Yield parameters and buffers by every name they have."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _partner(name: str, renamed: Sequence[tuple[str, str]], table: dict[str, str] | None) -> str | None:
    """Return the name in the teacher, or None if nothing there can be its partner."""
    for ours, theirs in renamed:
        if name.startswith(ours):
            module, _, leaf = name.removeprefix(ours).rpartition(".")
            found = module if table is None else table.get(module)
            return None if found is None else f"{theirs}{found}.{leaf}" if found else f"{theirs}{leaf}"
    return None


def _fitting(name: str, tensor: Tensor, partner: str, source: Tensor) -> Tensor:
    if tensor.shape != source.shape:
        raise ConfigError(
            f"student and teacher must have the same sizes: {name} is {list(tensor.shape)}, "
            f"{partner} is {list(source.shape)}"
        )
    return source


def _fold_token_type(sources: dict[str, Tensor], prefix: str) -> None:
    """Add the vector of the first token type to the position table that is to be copied."""
    positions = f"{prefix}embeddings.position_embeddings.weight"
    token_types = sources[f"{prefix}embeddings.token_type_embeddings.weight"]
    sources[positions] = sources[positions].detach().double() + token_types.detach()[0].double()
