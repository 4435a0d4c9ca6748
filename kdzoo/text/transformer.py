"""The protocol of text transformers: what a method can ask of one beside its output (hidden states, attentions)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class TransformerOutput:
    """Output of a text transformer for token ids ``[batch, length]``, with its intermediate results.

    Attributes:
        output: By task: logits ``[batch, length, vocab_size]`` of every token (``mlm``), logits
            ``[batch, num_classes]`` (``classification``), or vectors ``[batch, hidden]`` of norm 1 (``embedding``).
        hidden: Hidden states ``[batch, length, hidden]``: the embeddings, then the output of every layer.
        attentions: Attention weights ``[batch, heads, length, length]`` of every layer; empty if not asked for.
        valid: True at tokens, False at padding, ``[batch, length]``.
    """

    output: Tensor
    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]
    valid: Tensor


@runtime_checkable
class TextTransformer(Protocol):
    """A transformer of text.

    Attributes:
        task: ``mlm``, ``classification`` or ``embedding``; it decides on the output.
        pad_id: Id of the padding token; None if the model has none.
    """

    task: str
    pad_id: int | None

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the output for token ids ``[batch, length]``."""

    def enable_attention_outputs(self) -> None:
        """Make attention weights available, and switch off their dropout."""

    def read(self, input: Tensor, *, attentions: bool = False) -> TransformerOutput:
        """Return the output with all hidden states and, if ``attentions`` is true, the attention weights."""
