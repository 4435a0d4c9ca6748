"""A new BERT of any size with random weights, built by the library transformers."""

from typing import Any

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.layer_init import build_model
from kdzoo.models.hf import import_transformers
from kdzoo.models.local_attention import initialise_local_attention
from kdzoo.models.transformer import CLASS_SUFFIXES, TASKS, Transformer

STARTS = ("local_attention", "random")


class Bert(Transformer):
    """Bidirectional transformer encoder with random weights.

    Needs the optional extra ``kdzoo[text]``.

    Args:
        vocab_size: Number of tokens, >= 2.
        pad_id: Id of the padding token, in 0..vocab_size-1.
        task: ``mlm``, ``classification`` or ``embedding``; it determines the head.
        num_classes: Number of logits of a classifier, >= 1; has no effect for other tasks.
        tokenizer: Fingerprint of the tokenizer that makes the ids; set by a run. None for any.
        hidden_size: Width of the hidden states, a multiple of ``heads``.
        layers: Number of layers, >= 1.
        heads: Number of attention heads in each layer, >= 1.
        intermediate_size: Width of the feed-forward network in each layer, >= 1; None for 4 times ``hidden_size``.
        max_length: Tokens of the longest text, >= 1.
        dropout: Probability of dropping a unit or an attention weight, in [0, 1).
        start: ``local_attention``, where the heads of the first layer begin by attending to neighbouring tokens
            (:mod:`kdzoo.models.local_attention`), so that little text is enough to learn more than the frequencies of
            tokens; or ``random``, BERT's own initialisation.

    Raises:
        ConfigError: The extra is not installed, or an argument is outside its range.

    References:
        Devlin et al.: BERT, pre-training of deep bidirectional transformers. NAACL 2019, arXiv:1810.04805.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        pad_id: int = 0,
        task: str = "mlm",
        num_classes: int | None = None,
        tokenizer: str | None = None,
        hidden_size: int = 256,
        layers: int = 6,
        heads: int = 4,
        intermediate_size: int | None = None,
        max_length: int = 512,
        dropout: float = 0.1,
        start: str = "local_attention",
    ) -> None:
        import_transformers(type(self).__name__)
        width, n_heads = validation.integer("hidden_size", hidden_size), validation.integer("heads", heads)
        if width % n_heads:
            raise ConfigError(f"hidden_size={width} must be a multiple of heads={n_heads}")
        n_tokens = validation.integer("vocab_size", vocab_size, least=2)
        rate = validation.probability("dropout", dropout)
        config: dict[str, Any] = {
            "model_type": "bert",
            "vocab_size": n_tokens,
            "pad_token_id": validation.integer("pad_id", pad_id, 0, n_tokens - 1),
            "hidden_size": width,
            "num_hidden_layers": validation.integer("layers", layers),
            "num_attention_heads": n_heads,
            # Four times the width, as in BERT and in the first transformer (Vaswani et al. 2017).
            "intermediate_size": 4 * width
            if intermediate_size is None
            else validation.integer("intermediate_size", intermediate_size),
            "max_position_embeddings": validation.integer("max_length", max_length),
            "hidden_dropout_prob": rate,
            "attention_probs_dropout_prob": rate,
        }
        if validation.choice("task", task, TASKS) == "classification":
            if num_classes is None:
                raise ConfigError("num_classes is needed for task='classification'; allowed: an integer >= 1")
            config["num_labels"] = validation.integer("num_classes", num_classes)
        architecture: dict[str, Any] = {"model_class": f"Bert{CLASS_SUFFIXES[task]}", "config": config}
        if task == "embedding":  # the mean over the tokens does not use the pooler, whose weights would get no gradient
            architecture["add_pooling_layer"] = False
        super().__init__(build_model(architecture), task, tokenizer)
        if validation.choice("start", start, STARTS) == "local_attention":
            if width // n_heads % 2:  # a sinusoid needs a sine and a cosine
                raise ConfigError(f"start='local_attention' needs an even width of a head, got {width} / {n_heads}")
            initialise_local_attention(self.model.base_model)
