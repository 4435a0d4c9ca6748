"""A student that is its teacher with fewer layers: the same architecture, the chosen layers' weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, KdzooError
from kdzoo.layer_init import (
    LayerSearch,
    build_model,
    copy_layers,
    distilbert_architecture,
    fidelity,
    find_layers,
    loss,
    probe,
    search_layers,
    select_layers,
    truncate_architecture,
)
from kdzoo.models.hf import import_transformers
from kdzoo.models.transformer import HEADS, Transformer

OBJECTIVES: Mapping[str, Callable[..., Any]] = {"fidelity": fidelity, "probe": probe, "loss": loss}
STARTS = ("teacher", "random")
FAMILIES = ("same", "distilbert")
NAMES = ("every_other", "first", "last", "auto")


class TruncatedTransformer(Transformer):
    """A shallow copy of a transformer, which starts from some of its layers, its embeddings and its head.

    The architecture comes from the teacher; weights are copied by `init_from_teacher`, which a run calls when the
    teacher is trained. Layers are numbered from 0.

    Args:
        teacher_architecture: Class and configuration of the teacher (`Transformer.architecture`); a run knows it.
        tokenizer: Fingerprint of the tokenizer that makes the ids; a run knows it. None for any.
        layers: Which of the teacher's layers: `every_other`, `first`, `last`, a list of their numbers, or `auto` for
            the best by `objective`.
        depth: Number of layers, >= 1; None for half of the teacher's, or as many as are listed.
        family: `same` class as the teacher, or `distilbert`: a BERT without token types and pooler, the token-type
            vector folded into the positions.
        start: `teacher`, or `random` to copy nothing.
        objective: By what `auto` chooses, on validation texts: `fidelity` to the teacher's last hidden states,
            accuracy of a linear `probe`, or `loss` of the task.
        search_size: Validation texts that `auto` looks at, >= 8.
        search_tries: Choices of layers that `auto` tries at most, >= 1; all of them if they are no more.
        gradient_checkpointing: Whether layers are computed again in the backward pass, which saves memory.

    Attributes:
        chosen: The layers that it starts from; None before `init_from_teacher` where they are searched, or without a start.
        search: What `auto` has tried and found; None without it.

    Raises:
        ConfigError: If the extra is not installed, an argument is outside its range, or the architecture has no
            such layers.

    References:
        Sanh et al.: DistilBERT, a distilled version of BERT. arXiv:1910.01108, section 3.
    """

    def __init__(
        self,
        *,
        teacher_architecture: Mapping[str, Any],
        tokenizer: str | None = None,
        layers: str | Sequence[int] = "every_other",
        depth: int | None = None,
        family: str = "same",
        start: str = "teacher",
        objective: str = "fidelity",
        search_size: int = 96,
        search_tries: int = 64,
        gradient_checkpointing: bool = False,
    ) -> None:
        import_transformers(type(self).__name__)
        validation.choice("family", family, FAMILIES)
        self_start = validation.choice("start", start, STARTS)
        validation.choice("objective", objective, tuple(OBJECTIVES))
        size = validation.integer("search_size", search_size, least=8)
        checkpointing = validation.flag("gradient_checkpointing", gradient_checkpointing)
        deep = number_of_layers(teacher_architecture)
        if isinstance(layers, str):
            validation.choice("layers", layers, NAMES)
        searched = layers == "auto"
        if depth is not None:
            validation.integer("depth", depth, 1, deep)
        chosen = select_layers("every_other" if searched else layers, deep, depth)
        if family == "distilbert":
            architecture = distilbert_architecture(teacher_architecture, len(chosen))
        else:
            architecture = truncate_architecture(teacher_architecture, chosen)
        super().__init__(build_model(architecture), task_of(str(architecture["model_class"])), tokenizer)
        self.chosen: tuple[int, ...] | None = None if searched else chosen
        self.search: LayerSearch | None = None
        self.start, self.objective, self.search_size, self.depth = self_start, objective, size, len(chosen)
        self.tries = validation.integer("search_tries", search_tries)
        self.note = ""
        if checkpointing and not self.model.supports_gradient_checkpointing:
            raise ConfigError(
                f"gradient_checkpointing=true cannot be used: {type(self.model).__name__} has none; allowed: false"
            )
        if checkpointing:
            self.model.activation_checkpointing_enable()

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """The layers that were found, so that an exported student need not be searched for again."""
        return {} if self.chosen is None else {"layers": list(self.chosen)}

    def init_from_teacher(self, teacher: nn.Module, data: Any) -> None:
        """Take the teacher's weights: once, when it is trained.

        Args:
            teacher: Of the architecture that this student was made for.
            data: The data module, whose validation texts decide if `layers` is `auto`.

        Raises:
            ConfigError: The teacher is of another architecture, or there are no validation texts to decide by.
        """
        if self.start == "random":
            return
        if not isinstance(teacher, Transformer):
            raise ConfigError(f"student.layers needs a teacher of text from transformers, got {type(teacher).__name__}")
        if self.chosen is None:
            self.search = search_layers(teacher.model, self.depth, self._score(teacher, data), most=self.tries)
            self.chosen = self.search.chosen
        alone = copy_layers(self.model, teacher.model, self.chosen)
        self.note = f"layers {list(self.chosen)} of {len(find_layers(teacher.model)[1])}"
        if self.search is not None:
            self.note += f", best of {len(self.search.scores)} by {self.objective} ({self.search.score:.4g})"
        if alone:
            self.note += f"; at random: {', '.join(alone)}"

    def check_init_from_teacher(self, teacher: nn.Module, data: Any) -> None:
        """Refuse a teacher or data by which `init_from_teacher` cannot choose layers, before the teacher is trained.

        Raises:
            ConfigError: As of `init_from_teacher`; or the objective does not suit the task or the data.
        """
        if self.start == "teacher" and self.chosen is None and isinstance(teacher, Transformer):
            self._score(teacher, data)

    def _score(self, teacher: Transformer, data: Any) -> Callable[[Any], float]:
        batches = validation_texts(data, self.search_size)
        try:
            return OBJECTIVES[self.objective](batches, teacher.model, pad_id=teacher.pad_id)
        except KdzooError as error:
            raise ConfigError(f"student.objective={self.objective!r} cannot be used here: {error}") from error


def task_of(model_class: str) -> str:
    """Return the task of a class of transformers by its name."""
    return next(task for task, ending in HEADS.items() if model_class.endswith(ending))


def number_of_layers(architecture: Mapping[str, Any]) -> int:
    """Return how many layers an architecture has, whatever its configuration calls them.

    Raises:
        ConfigError: It has none.
    """
    for name in ("num_hidden_layers", "n_layers", "n_layer", "num_layers"):
        if isinstance(found := architecture.get("config", {}).get(name), int):
            return found
    raise ConfigError(f"teacher_architecture of {architecture.get('model_class')!r} has no number of layers")


def validation_texts(data: Any, count: int) -> list[dict[str, Tensor]]:
    """Return the first validation texts as batches.

    Raises:
        ConfigError: There are none.
    """
    found: list[dict[str, Tensor]] = []
    for batch in data.val_dataloader() or ():
        left = count - sum(len(one["input"]) for one in found)
        if left <= 0:
            break
        found.append({key: value[:left] for key, value in batch.items()})
    if not found:
        raise ConfigError("student.layers='auto' chooses on validation texts, and data has none; set data.val_size")
    return found
