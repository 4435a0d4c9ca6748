"""What the kinds whose models may be text transformers have in common: sizes, exports and the model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from kdzoo.core.abilities import DeclaresTokenizer
from kdzoo.errors import ConfigError
from kdzoo.kinds import transformers_export
from kdzoo.kinds.kind import Kind
from kdzoo.models.transformer import Transformer
from kdzoo.text.transformer import TextTransformer


class TextKind(Kind):
    """Base of the kinds whose models may be text transformers; for other models its methods have no effect."""

    task: ClassVar[str]
    """Task of a text transformer of this kind: ``mlm``, ``classification`` or ``embedding``."""

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model is a text transformer of this kind's task."""
        return isinstance(model, TextTransformer) and model.task == self.task

    def check_text(self, role: str, model: nn.Module, sizes: Mapping[str, Any]) -> None:
        """Reject a text transformer of another task, of another tokenizer, or with too few positions for the texts.

        Args:
            role: What the run calls the model, for the message.
            model: Any model; one that is not a text transformer passes.
            sizes: Model arguments that the data determine, of which ``tokenizer`` and ``text_length`` are used.

        Raises:
            ConfigError: The message names both tasks, both tokenizers or both lengths.
        """
        if isinstance(model, TextTransformer) and model.task != self.task:
            raise ConfigError(
                f"{role} {type(model).__name__} has task={model.task!r}, but the kind {self.name} needs "
                f"task={self.task!r}; set {role}.task={self.task}, or choose another distiller"
            )
        tokenizer = model.tokenizer if isinstance(model, DeclaresTokenizer) else None
        tokenizer_of_data = sizes.get("tokenizer")
        # Either may be unknown; two tokenizers of equal size would otherwise go unnoticed, and the ids be nonsense.
        if tokenizer is not None and tokenizer_of_data is not None and tokenizer != tokenizer_of_data:
            raise ConfigError(
                f"{role} {type(model).__name__} was trained with the tokenizer {tokenizer}, but the data have "
                f"{tokenizer_of_data}; set data.tokenizer to the folder of the model's own one, such as student/hf"
            )
        if isinstance(model, Transformer):
            # The longest of all texts, since the batch on which a run is tried out may have short ones only.
            model.check_length(sizes.get("text_length", 0))

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return ``layer_parameters``, the number of parameters without embeddings and head, of a text transformer."""
        return transformers_export.layer_sizes(model)

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write a text transformer as a folder for the library transformers and as a ``torch.export`` program."""
        return transformers_export.export(model, folder, data)

    def describe(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write the model card of an exported text transformer."""
        transformers_export.write_model_card(folder, result, self.task)
