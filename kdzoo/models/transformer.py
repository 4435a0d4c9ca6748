"""The base of all text transformers: called with token ids, it gives all that distillation compares."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.layer_init import architecture_of, find_layers
from kdzoo.layer_init.hugging_face import attribute
from kdzoo.text.transformer import TransformerOutput

TASKS = ("mlm", "classification", "embedding")
# End of the name of the classes of transformers that do a task; "Model" last, since it is compared in this order.
CLASS_SUFFIXES = {"mlm": "ForMaskedLM", "classification": "ForSequenceClassification", "embedding": "Model"}
# Architectures whose positions start behind the id of the padding token, as in fairseq, where they come from: of the
# 514 rows of RoBERTa's position table, 512 can be used.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


class Transformer(nn.Module):
    """A model of the library transformers as a teacher or student: token ids in, one tensor out.

    The wrapped model is ``model``, so all of its submodules can be hooked below that name.

    Args:
        model: A transformers model with a masked-language or classification head, or an encoder without a head.
        task: ``mlm``, ``classification`` or ``embedding``. The embedding of a text is the mean of the last hidden
            states of its tokens, scaled to norm 1.
        tokenizer: Fingerprint of the tokenizer that makes its ids (``kdzoo.text.tokenizers.fingerprint``), if known.

    Attributes:
        task: As given.
        tokenizer: As given.
        pad_id: Id of the padding token; None if the model has none.
        max_length: Tokens of the longest text that the model can read; None if there is no limit.

    Raises:
        ConfigError: The task is unknown.
    """

    takes_images: bool = False
    """Whether it is a classifier of images, which is not called with token ids."""

    def __init__(self, model: Any, task: str, tokenizer: str | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.task = validation.choice("task", task, TASKS)
        # Like any new module: transformers loads models in eval mode, and Lightning would keep that during training.
        self.model = model.train()
        self.pad_id: int | None = attribute(model.config, "pad_token_id")
        self.max_length: int | None = max_text_length(model.config)
        self._takes_mask = "attention_mask" in inspect.signature(model.forward).parameters

    @property
    def architecture(self) -> dict[str, Any]:
        """Class and configuration of the wrapped model as plain values."""
        return architecture_of(self.model)

    @property
    def layers(self) -> nn.ModuleList | nn.Sequential:
        """The wrapped model's list of layers."""
        return find_layers(self.model)[1]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table, of which a tokenizer may use fewer."""
        return int(self.model.config.vocab_size)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def forward(self, input: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return the output of the task; see :class:`kdzoo.text.transformer.TransformerOutput` for its shape.

        Args:
            input: Token ids ``[batch, length]``, whose padding is masked; or arguments of the wrapped model by name.

        Raises:
            ConfigError: The input is not a matrix of token ids, or longer than the model's positions.
        """
        arguments = dict(input) if isinstance(input, Mapping) else self.model_arguments(input)
        return self._output(self.model(**arguments, return_dict=True), arguments.get("attention_mask"))

    def read(self, input: Tensor, *, attentions: bool = False) -> TransformerOutput:
        """Return the output for token ids ``[batch, length]`` with all hidden states and, if asked for, attentions.

        Call ``enable_attention_outputs`` once before asking for attentions.

        Raises:
            ConfigError: See ``forward``.
        """
        arguments = self.model_arguments(input)
        outputs = self.model(**arguments, return_dict=True, output_hidden_states=True, output_attentions=attentions)
        mask = arguments.get("attention_mask")
        return TransformerOutput(
            self._output(outputs, mask),
            tuple(outputs.hidden_states),
            tuple(outputs.attentions) if attentions else (),
        )

    def enable_attention_outputs(self) -> None:
        """Make attention weights available, and switch off their dropout.

        The default implementation of attention never holds the weights, and transformers would return an empty tuple
        with no more than a warning.
        """
        self.model.set_attn_implementation("eager")
        for module in self.model.modules():
            if type(module).__name__.endswith("SelfAttention") and isinstance(module.dropout, nn.Dropout):
                module.dropout.p = 0.0  # a row in which weights were dropped does not sum to 1, and has no divergence

    def check_length(self, length: int | torch.SymInt) -> None:
        """Reject texts of more tokens than the model has positions.

        Raises:
            ConfigError: The message has both numbers.
        """
        if self.max_length is not None and length > self.max_length:
            raise ConfigError(
                f"texts of {length} tokens are longer than the {self.max_length} positions of "
                f"{type(self.model).__name__}; cut them (data.max_length, data.block_size)"
            )

    def model_arguments(self, input: Tensor) -> dict[str, Tensor]:
        """Return the wrapped model's arguments for token ids ``[batch, length]``.

        Raises:
            ConfigError: See ``forward``.
        """
        if input.dim() != 2 or input.dtype not in (torch.int64, torch.int32):
            raise ConfigError(f"input must be 2-D int token ids, got {input.dtype} {list(input.shape)}")
        # Checked here because an index outside of the position table is an opaque error on a GPU.
        self.check_length(input.shape[1])
        if self.pad_id is None or not self._takes_mask:
            return {"input_ids": input}
        return {"input_ids": input, "attention_mask": input.ne(self.pad_id).long()}

    def _output(self, outputs: Any, mask: Tensor | None) -> Tensor:
        return outputs.logits if self.task != "embedding" else mean_pooled(outputs.last_hidden_state, mask)


def mean_pooled(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of hidden states over the tokens of each text, scaled to norm 1.

    Args:
        hidden: Hidden states ``[batch, length, hidden]``.
        mask: 1 at tokens, 0 at padding ``[batch, length]``; None if nothing is padding.

    Returns:
        Vectors ``[batch, hidden]``.
    """
    if mask is None:
        return normalize(hidden.mean(1), dim=-1)
    weight = mask.to(hidden.dtype)[..., None]
    return normalize((hidden * weight).sum(1) / weight.sum(1).clamp_min(1), dim=-1)  # an empty text is 0, not NaN


def max_text_length(config: Any) -> int | None:
    """Return the number of tokens of the longest text that a model can read; None if there is no limit."""
    positions = attribute(config, "max_position_embeddings")
    if positions is None or positions <= 0:  # positions are relative, and a text may be of any length
        return None
    offset = config.pad_token_id + 1 if config.model_type in OFFSET_POSITIONS else 0
    return int(positions) - offset
