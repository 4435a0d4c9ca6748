"""Copying a teacher's weights into a student with fewer layers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init.hugging_face import attribute, base_prefix
from kdzoo.layer_init.layer_lists import LayerList, find_layers
from kdzoo.layer_init.selection import select_layers

# Name of each module of a DistilBERT in a BERT. The names are relative to the encoder, to a layer, or to the model with
# its masked-language head; no name occurs in two of these places.
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


def copy_layers(
    student: nn.Module, teacher: nn.Module, layers: str | Sequence[int], *, path: str | None = None
) -> tuple[str, ...]:
    """Copy into a student's layer i the teacher's layer ``layers[i]``, and all other tensors by name.

    The other tensors are all parameters and buffers outside of the layers: embeddings, final norms, the head. Models of
    transformers may differ in their head, and one of them may have none. Nothing is copied unless every shape fits.
    Tied weights stay tied, and precision and device stay the student's.

    A DistilBERT takes the weights of a BERT by a table of names. It has no token types: the vector of the first type is
    added to the position table, so that a copy of all layers is exact for texts of one segment. The classification
    heads differ (a pooler with tanh, a ``pre_classifier`` with ReLU) and are not copied; masked-language heads are.

    Args:
        student: The model whose weights are overwritten.
        teacher: The model that is copied from.
        layers: Indices of the teacher's layers, strictly increasing, as many as the student has; or a rule of
            ``select_layers``.
        path: Dotted path of the list of layers in both models; None where ``find_layers`` finds it.

    Returns:
        Sorted names of the student's parameters and buffers without a counterpart, which are unchanged.

    Raises:
        ConfigError: The models are of different types other than DistilBERT from BERT, the selected layers do not fit,
            a counterpart has another shape, or the layers have no name in common.

    Example:
        >>> from torch import nn
        >>> deep, shallow = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(n))) for n in (4, 2))
        >>> copy_layers(shallow, deep, [1, 3], path="")
        ()
        >>> bool((shallow[1].weight == deep[3].weight).all())
        True

    References:
        Sanh et al.: DistilBERT. arXiv:1910.01108, section 3; the token-type vector is dropped there.
    """
    naming = _Naming.between(student, teacher, layers, path)
    sources = dict(_named_tensors(teacher))
    if naming.modules is not None:
        _fold_token_type(sources, base_prefix(teacher))
    copies, unmatched = _match(student, sources, naming)
    with torch.no_grad():
        for tensor, source in copies:
            tensor.copy_(source)
    return unmatched


@dataclass(frozen=True)
class _Naming:
    """How names of the student's tensors are translated into names of the teacher's.

    Attributes:
        layers: Prefix of the names in each layer of the student, with the prefix of its layer of the teacher.
        rest: The same outside of the layers: first the encoder or decoder, then the head.
        modules: Names of modules after the prefix; None if they are the same in both models.
        lists: Paths of the two lists of layers, for error messages.
    """

    layers: tuple[tuple[str, str], ...]
    rest: tuple[tuple[str, str], ...]
    modules: dict[str, str] | None
    lists: tuple[str, str]

    @classmethod
    def between(
        cls, student: nn.Module, teacher: nn.Module, layers: str | Sequence[int], path: str | None
    ) -> "_Naming":
        """Compare two models, and check that the selected layers exist."""
        modules = _module_names(student, teacher)
        student_path, student_layers = find_layers(student, path)
        teacher_path, teacher_layers = find_layers(teacher, path)
        indices = select_layers(layers, len(teacher_layers), len(student_layers))
        teacher_prefixes = _layer_prefixes(teacher_path, teacher_layers)
        pairs = zip(
            _layer_prefixes(student_path, student_layers), [teacher_prefixes[index] for index in indices], strict=True
        )
        # A teacher without a head has only the tensors of its encoder, so nothing of a student's head is looked up.
        head = (("", ""),) if base_prefix(teacher) else ()
        encoder = (base_prefix(student), base_prefix(teacher))
        return cls(tuple(pairs), (encoder, *head), modules, (student_path, teacher_path))

    def counterpart(self, name: str) -> str | None:
        """Return the teacher's name for a tensor of the student; None if the teacher cannot have it."""
        # The first prefix that fits decides: a layer before the encoder around it, the encoder before everything.
        for student_prefix, teacher_prefix in (*self.layers, *self.rest):
            if name.startswith(student_prefix):
                module, _, leaf = name.removeprefix(student_prefix).rpartition(".")
                translated = module if self.modules is None else self.modules.get(module)
                if translated is None:
                    return None
                return f"{teacher_prefix}{translated}.{leaf}" if translated else f"{teacher_prefix}{leaf}"
        return None


def _match(
    student: nn.Module, sources: dict[str, Tensor], naming: _Naming
) -> tuple[list[tuple[Tensor, Tensor]], tuple[str, ...]]:
    """Return the student's tensors with what is copied into them, and the sorted names of those without a source."""
    # Keyed by identity: a tied weight has several names, and takes the source of any of them.
    copies: dict[int, tuple[Tensor, Tensor]] = {}
    names: dict[int, str] = {}
    any_in_layers = False
    for name, tensor in _named_tensors(student):
        names.setdefault(id(tensor), name)
        source_name = naming.counterpart(name)
        if source_name in sources and id(tensor) not in copies:
            source = sources[str(source_name)]
            _check_shape(name, tensor, str(source_name), source)
            copies[id(tensor)] = (tensor, source)
            any_in_layers |= any(name.startswith(prefix) for prefix, _ in naming.layers)
    if not any_in_layers:
        student_path, teacher_path = naming.lists
        raise ConfigError(
            f"layers {student_path!r} of the student have no name in common with {teacher_path!r} of the teacher"
        )
    return list(copies.values()), tuple(sorted(name for key, name in names.items() if key not in copies))


def _module_names(student: nn.Module, teacher: nn.Module) -> dict[str, str] | None:
    """Return the teacher's names of the student's modules; None where they are the same."""
    student_type, teacher_type = (
        attribute(attribute(model, "config"), "model_type") for model in (student, teacher)
    )  # None for modules that are not of transformers, which must then have the same names
    if student_type == teacher_type:
        return None
    if (student_type, teacher_type) == ("distilbert", "bert"):
        return DISTILBERT_FROM_BERT
    raise ConfigError(
        f"student must be of the teacher's type {teacher_type!r}"
        f"{' or distilbert' if teacher_type == 'bert' else ''} to take its layers, got {student_type!r}"
    )


def _layer_prefixes(path: str, layers: LayerList) -> list[str]:
    """Return the prefix of the names in each layer."""
    return [f"{path}.{name}." if path else f"{name}." for name in layers._modules]


def _named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Yield parameters and buffers, tied ones under every name they have."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _check_shape(name: str, tensor: Tensor, source_name: str, source: Tensor) -> None:
    if tensor.shape != source.shape:
        raise ConfigError(
            f"student and teacher must have the same sizes: {name} is {list(tensor.shape)}, "
            f"{source_name} is {list(source.shape)}"
        )


def _fold_token_type(sources: dict[str, Tensor], prefix: str) -> None:
    """Add the vector of the first token type to the position table that will be copied.

    In a text of one segment every position has this vector added to it, so a DistilBERT with it in its positions has
    the same embeddings. A copy of all layers of MiniLM has a mean cosine of 0.64 to its teacher without it, 1 with it.
    """
    positions = f"{prefix}embeddings.position_embeddings.weight"
    token_types = sources[f"{prefix}embeddings.token_type_embeddings.weight"]
    # Summed in float64, so that the only rounding is that of the student's own precision.
    sources[positions] = sources[positions].detach().double() + token_types.detach()[0].double()
