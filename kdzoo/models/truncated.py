"""A student with its teacher's architecture but fewer layers, initialised from some of the teacher's layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, KdzooError
from kdzoo.layer_init import (
    LayerSearch,
    build_model,
    copy_layers,
    depth_of,
    distilbert_architecture,
    fidelity_objective,
    find_layers,
    loss_objective,
    probe_objective,
    search_layers,
    select_layers,
    truncate_architecture,
)
from kdzoo.layer_init.selection import RULES
from kdzoo.models.hf import import_transformers
from kdzoo.models.transformer import CLASS_SUFFIXES, Transformer

OBJECTIVES: Mapping[str, Callable[..., Any]] = {
    "fidelity": fidelity_objective,
    "probe": probe_objective,
    "loss": loss_objective,
}
STARTS = ("teacher", "random")
FAMILIES = ("same", "distilbert")
# Fewest validation texts of a search. The scores of so few are noisy already; the default is 96, at 12 seconds of one
# core for all 20 selections of 3 of 6 layers of MiniLM.
MIN_SEARCH_SIZE = 8


class TruncatedTransformer(Transformer):
    """A transformer with the architecture of its teacher and some of its layers.

    The architecture comes from the teacher; the weights of the layers, embeddings and head are copied by
    ``init_from_teacher``, which a run calls once the teacher is trained. Layers are numbered from 0.

    Args:
        teacher_architecture: Class and configuration of the teacher (``Transformer.architecture``); set by a run.
        tokenizer: Fingerprint of the tokenizer that makes the ids; set by a run. None for any.
        layers: Which of the teacher's layers: ``every_other``, ``first``, ``last``, a list of their indices, or
            ``auto`` for the best by ``objective``.
        depth: Number of layers, >= 1; None for half of the teacher's, or as many as are listed.
        family: ``same`` for the teacher's class, or ``distilbert`` for a BERT without token types and pooler, whose
            token-type vector is folded into the positions.
        start: ``teacher``, or ``random`` to copy nothing.
        objective: Criterion of ``auto`` on validation texts: ``fidelity`` to the teacher's last hidden states, accuracy
            of a linear ``probe``, or ``loss`` of the task.
        search_size: Number of validation texts that ``auto`` uses, >= 8.
        search_tries: Largest number of selections that ``auto`` tries, >= 1; all of them if there are no more.
        gradient_checkpointing: Compute layers again in the backward pass, which saves memory.

    Attributes:
        chosen_layers: Indices of the layers that it starts from; None before ``init_from_teacher`` if they are
            searched, or if nothing is copied.
        search: Result of the search of ``auto``; None without it.
        init_note: One line for the report about what was copied; empty before ``init_from_teacher``.

    Raises:
        ConfigError: The extra is not installed, an argument is outside its range, or the architecture does not have
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
        # nn.Module.__init__ must run before attributes are set, and it needs the model: checked values wait until then.
        checked_start = validation.choice("start", start, STARTS)
        validation.choice("objective", objective, tuple(OBJECTIVES))
        checked_size = validation.integer("search_size", search_size, least=MIN_SEARCH_SIZE)
        checked_tries = validation.integer("search_tries", search_tries)
        recomputes_layers = validation.flag("gradient_checkpointing", gradient_checkpointing)
        selected, architecture = _truncated(teacher_architecture, layers, depth, family)
        super().__init__(build_model(architecture), task_of(str(architecture["model_class"])), tokenizer)
        self.chosen_layers: tuple[int, ...] | None = None if layers == "auto" else selected
        self.search: LayerSearch | None = None
        self.init_note = ""
        self.start, self.objective, self.depth = checked_start, objective, len(selected)
        self.search_size, self.search_tries = checked_size, checked_tries
        if recomputes_layers:
            if not self.model.supports_gradient_checkpointing:
                raise ConfigError(
                    f"gradient_checkpointing=true cannot be used: {type(self.model).__name__} does not support it; "
                    "allowed: false"
                )
            self.model.activation_checkpointing_enable()

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """The layers that a search has chosen, so that an exported student is built without a new search."""
        return {} if self.chosen_layers is None else {"layers": list(self.chosen_layers)}

    def init_from_teacher(self, teacher: nn.Module, data: Any) -> None:
        """Copy the teacher's weights; to be called once, when the teacher is trained.

        Args:
            teacher: A model of the architecture that this student was made for.
            data: The data module, whose validation texts are used if ``layers`` is ``auto``.

        Raises:
            ConfigError: The teacher is of another architecture, or there are no validation texts.
        """
        if self.start == "random":  # an ablation: the same architecture without the teacher's weights
            return
        if not isinstance(teacher, Transformer):
            raise ConfigError(f"student.layers needs a teacher of text from transformers, got {type(teacher).__name__}")
        if self.chosen_layers is None:
            score = self._score(teacher, data)
            self.search = search_layers(teacher.model, self.depth, score, max_tries=self.search_tries)
            self.chosen_layers = self.search.layers
        # Weights without a counterpart, such as a new classification head, are named: they have to be trained.
        unmatched = copy_layers(self.model, teacher.model, self.chosen_layers)
        self.init_note = f"layers {list(self.chosen_layers)} of {len(find_layers(teacher.model)[1])}"
        if self.search is not None:
            self.init_note += f", best of {len(self.search.scores)} by {self.objective} ({self.search.score:.4g})"
        if unmatched:
            self.init_note += f"; at random: {', '.join(unmatched)}"

    def check_init_from_teacher(self, teacher: nn.Module, data: Any) -> None:
        """Check, before the teacher is trained, that ``init_from_teacher`` will be able to choose layers.

        Raises:
            ConfigError: See ``init_from_teacher``; or the objective does not suit the task or the data.
        """
        if self.start == "teacher" and self.chosen_layers is None and isinstance(teacher, Transformer):
            self._score(teacher, data)

    def _score(self, teacher: Transformer, data: Any) -> Callable[[Any], float]:
        """Return the function by which ``auto`` compares selections of layers."""
        batches = validation_texts(data, self.search_size)
        try:
            return OBJECTIVES[self.objective](batches, teacher.model, pad_id=teacher.pad_id)
        except KdzooError as error:  # with the name of the option that the user can change
            raise ConfigError(f"student.objective={self.objective!r} cannot be used here: {error}") from error


def _truncated(
    teacher_architecture: Mapping[str, Any], layers: str | Sequence[int], depth: int | None, family: str
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the selected layers and the student's architecture.

    Before a search the layers are those of ``every_other``; only their number matters then.
    """
    teacher_depth = depth_of(teacher_architecture)
    if isinstance(layers, str):
        validation.choice("layers", layers, (*RULES, "auto"))
    if depth is not None:
        validation.integer("depth", depth, 1, teacher_depth)
    # Any rule would do for ``auto``; the weights are copied only after the search.
    selected = select_layers("every_other" if layers == "auto" else layers, teacher_depth, depth)
    if family == "distilbert":
        return selected, distilbert_architecture(teacher_architecture, len(selected))
    return selected, truncate_architecture(teacher_architecture, selected)


def task_of(model_class: str) -> str:
    """Return the task of a class of transformers by the end of its name.

    Example:
        >>> task_of("BertForMaskedLM"), task_of("BertModel")
        ('mlm', 'embedding')
    """
    return next(task for task, suffix in CLASS_SUFFIXES.items() if model_class.endswith(suffix))


def validation_texts(data: Any, count: int) -> list[dict[str, Tensor]]:
    """Return the first ``count`` validation texts of a data module, as batches.

    Raises:
        ConfigError: There are no validation texts.
    """
    batches: list[dict[str, Tensor]] = []
    for batch in data.val_dataloader() or ():
        missing = count - sum(len(earlier["input"]) for earlier in batches)
        if missing <= 0:
            break
        batches.append({key: value[:missing] for key, value in batch.items()})  # exactly count texts in the end
    if not batches:
        raise ConfigError("student.layers='auto' chooses on validation texts, and data has none; set data.val_size")
    return batches
