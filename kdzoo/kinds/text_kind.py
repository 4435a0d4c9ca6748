"""What kinds have in common whose models may be transformers of text: their size, their exports, their model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from kdzoo.core.abilities import DeclaresTokenizer
from kdzoo.errors import ConfigError
from kdzoo.kinds import transformers_export
from kdzoo.kinds.kind import Kind
from kdzoo.text.transformer import TextTransformer


class TextKind(Kind):
    """Base of kinds with models of text among others; of the others nothing is said or written."""

    task: ClassVar[str]
    """What a transformer of text of this kind does."""

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model is a transformer of this kind's task."""
        return isinstance(model, TextTransformer) and model.task == self.task

    def check_text(self, role: str, model: nn.Module, sizes: Mapping[str, Any]) -> None:
        """Refuse a transformer of another task, or one that was trained on the ids of another tokenizer.

        Raises:
            ConfigError: names both tasks, or both tokenizers.
        """
        if isinstance(model, TextTransformer) and model.task != self.task:
            raise ConfigError(
                f"{role} {type(model).__name__} has task={model.task!r}, but a {self.name} with task={self.task!r} is needed; set "
                f"teacher.task={self.task}, or choose another distiller"
            )
        own = model.tokenizer if isinstance(model, DeclaresTokenizer) else None
        of_data = sizes.get("tokenizer")
        if own is not None and of_data is not None and own != of_data:
            raise ConfigError(
                f"{role} {type(model).__name__} was trained with the tokenizer {own}, the data have {of_data}; set "
                "data.tokenizer to the folder of its own, such as student/hf of its run"
            )

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the number of parameters without embeddings and head."""
        return transformers_export.sizes(model)

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write a transformer as a folder that the library transformers opens, and as a program of torch.export."""
        return transformers_export.export(model, folder, data)

    def describe(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write the model card."""
        transformers_export.model_card(folder, result, self.task)
