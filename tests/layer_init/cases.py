"""Tiny transformers with random weights, texts with padding, and a module of torch's own with named layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

VOCABULARY, PAD = 50, 0
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "pad_token_id": PAD,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "Bert": {**BERT_LIKE, "num_hidden_layers": 4},
    "Roberta": {**BERT_LIKE, "num_hidden_layers": 4},
    "Electra": {**BERT_LIKE, "num_hidden_layers": 4, "embedding_size": 8},
    "DebertaV2": {
        **BERT_LIKE,
        "num_hidden_layers": 4,
        "relative_attention": True,
        "position_buckets": 4,
        "pos_att_type": ["p2c", "c2p"],
        "conv_kernel_size": 3,
    },
    "DistilBert": {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24},
    "GPT2": {
        **{"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 20},
        **{"bos_token_id": None, "eos_token_id": None},
    },
    "Qwen2": {
        **{"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2},
        **{"intermediate_size": 24, "num_key_value_heads": 2, "use_sliding_window": True, "max_window_layers": 2},
        **{"sliding_window": 4, "max_position_embeddings": 20},
    },
}
HEADS = {"GPT2": "LMHeadModel", "Qwen2": "ForCausalLM"}


def architecture(family: str, head: str | None = None, **changes: Any) -> dict[str, Any]:
    head = HEADS.get(family, "ForMaskedLM") if head is None else head
    return {"model_class": f"{family}{head}", "config": {**CONFIGS[family], **changes}}


def made(family: str, head: str | None = None, *, seed: int = 0, **changes: Any) -> Any:
    """Return a model in eval mode all of whose parameters are normal: biases and norms too."""
    from kdzoo.layer_init import build_model

    return randomised(build_model(architecture(family, head, **changes)), seed)


def randomised(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data = parameter.data * 0 + (1 if parameter.dim() == 1 else 0) + 0.3 * noise
    return model.eval()


def texts(n: int = 6, length: int = 9, seed: int = 0) -> Tensor:
    """Return token ids (n, length) of texts of different lengths, with padding at their ends."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (n, length), generator=generator)
    for row in range(n):
        ids[row, 2 + row % (length - 1) :] = PAD
    return ids


def outputs_of(model: Any, ids: Tensor) -> Any:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=ids.ne(PAD).long())


class Tagger(nn.Module):
    """An encoder of torch's own between an embedding and a head."""

    def __init__(self, depth: int, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        block = nn.TransformerEncoderLayer(width, 2, 24, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 3))
        self.register_buffer("steps", torch.arange(5))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids)))


needs_transformers = pytest.mark.usefixtures("transformers")
