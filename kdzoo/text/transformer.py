"""What a transformer of text can be asked for beside its output: hidden states and attentions."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class TransformerOutput:
    """What a transformer makes of texts (batch, length).

    Attributes:
        output: Of the task: logits (batch, length, vocab_size) of every token, logits (batch, num_classes), or
            vectors (batch, hidden) of norm 1.
        hidden: Hidden states (batch, length, hidden): the embeddings, then that after every layer.
        attentions: Of every layer (batch, heads, length, length), if they were asked for.
        valid: Whether a position is a token and not padding (batch, length).
    """

    output: Tensor
    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]
    valid: Tensor


@runtime_checkable
class TextTransformer(Protocol):
    """A transformer of text.

    Attributes:
        task: `mlm`, `classification` or `embedding`: what its output is.
        hidden_size: Width of the hidden states.
        pad_id: The token that is no token; None if the model has none.
    """

    task: str
    pad_id: int | None

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the output for token ids (batch, length)."""

    def enable_attention_outputs(self) -> None:
        """Make attentions readable, and drop none of them in training."""

    def read(self, input: Tensor, *, attentions: bool = False) -> TransformerOutput:
        """Return the output with all hidden states, and attentions if they are wanted."""
