"""The protocol of text transformers, which return hidden states and attention weights in addition to their output."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class TransformerOutput:
    """Output of a text transformer for token ids ``[batch, length]``, with its intermediate results.

    Attributes:
        output: Depending on the task, logits ``[batch, length, vocab_size]`` of every token (``mlm``), logits
            ``[batch, num_classes]`` (``classification``), or vectors ``[batch, hidden]`` of norm 1 (``embedding``).
        hidden: Hidden states ``[batch, length, hidden]``: the embeddings, then the output of every layer.
        attentions: Attention weights ``[batch, heads, length, length]`` of every layer; empty unless
            :meth:`TextTransformer.read` was called with ``attentions=True``.
    """

    output: Tensor
    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]


@runtime_checkable
class TextTransformer(Protocol):
    """A transformer that reads token ids.

    Attributes:
        task: ``mlm``, ``classification`` or ``embedding``; it determines :attr:`TransformerOutput.output`.
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
        """Make the model return attention weights, and switch off dropout on them.

        Call it before :meth:`read` with ``attentions=True``.
        """

    def read(self, input: Tensor, *, attentions: bool = False) -> TransformerOutput:
        """Return the output for token ids ``[batch, length]`` with all hidden states.

        Args:
            input: Token ids, int64 ``[batch, length]``.
            attentions: Whether to return the attention weights of all layers as well.
        """
