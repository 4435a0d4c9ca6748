"""What transformers of text have in common here: called with token ids, asked for all that distillation compares."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.layer_init import architecture_of, find_layers
from kdzoo.text.transformer import TransformerOutput

TASKS = ("mlm", "classification", "embedding")
HEADS = {"mlm": "ForMaskedLM", "classification": "ForSequenceClassification", "embedding": "Model"}
"""How the classes of transformers end that do a task."""


class Transformer(nn.Module):
    """A model of the library transformers as a teacher or student: token ids in, one tensor out.

    The wrapped model is `model`, so all of its submodules can be hooked below that name.

    Args:
        model: Ends in a masked-language or classification head, or is an encoder without one.
        task: `mlm`, `classification` or `embedding`. A vector of a text is the mean of the last hidden states of its
            tokens, of norm 1.
        tokenizer: Fingerprint of the tokenizer that makes its ids (`kdzoo.text.tokenizers.fingerprint`), if it is known.

    Attributes:
        task: As given.
        tokenizer: Fingerprint of the tokenizer that makes its ids; None if that is not known.
        pad_id: The token that is no token; None if the model has none.
    """

    takes_images: bool = False
    """Whether it is a classifier of images, which has no texts to read."""

    def __init__(self, model: Any, task: str, tokenizer: str | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.task = validation.choice("task", task, TASKS)
        self.model = model.train()  # like any new module; transformers may hand it over in eval mode
        self.pad_id: int | None = getattr(model.config, "pad_token_id", None)
        self.max_length: int | None = longest(model.config)
        self._takes_mask = "attention_mask" in inspect.signature(model.forward).parameters

    @property
    def architecture(self) -> dict[str, Any]:
        """Class and configuration of the wrapped model as plain values."""
        return architecture_of(self.model)

    @property
    def layers(self) -> nn.ModuleList | nn.Sequential:
        """The wrapped model's layers."""
        return find_layers(self.model)[1]

    @property
    def vocab_size(self) -> int:
        """Rows of the table of tokens, of which a tokenizer may use fewer."""
        return int(self.model.config.vocab_size)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def forward(self, input: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The output of the task for texts (batch, length).

        Args:
            input: Token ids, of which those that pad are masked; or arguments of the wrapped model by name.

        Raises:
            ConfigError: The input is no token ids, or longer than the model's positions.
        """
        named = dict(input) if isinstance(input, Mapping) else self.named(input)
        return self._output(self.model(**named, return_dict=True), named.get("attention_mask"))

    def read(self, input: Tensor, *, attentions: bool = False) -> TransformerOutput:
        """Return the output for texts (batch, length) with all hidden states, and attentions if they are wanted.

        Call `enable_attention_outputs` once before attentions are wanted.

        Raises:
            ConfigError: As of `forward`.
        """
        named = self.named(input)
        answer = self.model(**named, return_dict=True, output_hidden_states=True, output_attentions=attentions)
        mask = named.get("attention_mask")
        return TransformerOutput(
            self._output(answer, mask),
            tuple(answer.hidden_states),
            tuple(answer.attentions) if attentions else (),
            torch.ones_like(input, dtype=torch.bool) if mask is None else mask.bool(),
        )

    def enable_attention_outputs(self) -> None:
        """Make attentions readable: use the implementation that holds them, and drop none of them in training."""
        self.model.set_attn_implementation("eager")
        for module in self.model.modules():
            if type(module).__name__.endswith("SelfAttention") and isinstance(module.dropout, nn.Dropout):
                module.dropout.p = 0.0  # a row that has lost entries is no distribution

    def named(self, input: Tensor) -> dict[str, Tensor]:
        """Return the wrapped model's arguments for token ids (batch, length).

        Raises:
            ConfigError: As of `forward`.
        """
        if input.dim() != 2 or input.dtype not in (torch.int64, torch.int32):
            raise ConfigError(f"input must be 2-D int token ids, got {input.dtype} {list(input.shape)}")
        if self.max_length is not None and input.shape[1] > self.max_length:
            raise ConfigError(
                f"texts of {input.shape[1]} tokens are longer than the {self.max_length} positions of "
                f"{type(self.model).__name__}; cut them (data.max_length, data.block_size)"
            )
        if self.pad_id is None or not self._takes_mask:
            return {"input_ids": input}
        return {"input_ids": input, "attention_mask": input.ne(self.pad_id).long()}

    def _output(self, answer: Any, mask: Tensor | None) -> Tensor:
        if self.task != "embedding":
            return answer.logits
        return mean_pooled(answer.last_hidden_state, mask)


def mean_pooled(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return vectors (batch, hidden) of norm 1: means of hidden states (batch, length, hidden) under the mask."""
    if mask is None:
        return normalize(hidden.mean(1), dim=-1)
    weight = mask.to(hidden.dtype)[..., None]
    return normalize((hidden * weight).sum(1) / weight.sum(1).clamp_min(1), dim=-1)


def longest(config: Any) -> int | None:
    """Return the number of tokens of the longest text that a model takes, or None where there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    offset = config.pad_token_id + 1 if config.model_type in OFFSET else 0  # their positions begin after the padding's
    return int(positions) - offset


OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
