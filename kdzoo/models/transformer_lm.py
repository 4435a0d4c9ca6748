"""A small decoder-only transformer language model with learned positions.

Notation: V symbols, the last of which begins and ends a sequence; W width, A heads of size d = W / A; keys and values
of each layer ``[batch, A, length, d]``.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.text.language_model import Trace

Cache = tuple[Tensor, Tensor]
"""Keys and values of a layer."""
State = tuple[tuple[Cache, ...], Tensor]
"""The cache of each layer, and the last output ``[n, W]``."""

# Standard deviation of initial embeddings and positions, as in GPT-2. With torch's default of 1 the random embeddings
# would drown what the blocks add to them.
INIT_STD = 0.02


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each of them a residual branch behind a layer norm.

    Args:
        width: Width W of inputs and outputs.
        heads: Number of attention heads; it divides the width.
        dropout: Probability of dropping a unit of either branch.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.before_network = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Return the outputs for x ``[batch, length, W]``, and all keys and values; with a cache the length is 1."""
        projected = self.project(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
        # A single query at the end may attend to everything; torch would align the causal mask with the first key.
        attended = scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.dropout(self.merge(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(self.before_network(x))), (key, value)


class TransformerLM(nn.Module):
    """Language model with causal self-attention.

    The hidden vector of a prefix is the normalised output of the last block, ``[W]``. Modules to hook: ``embedding``
    (``[batch, length, W]``), ``norm``, whose output are the hidden vectors, and ``head``, whose output are the logits.

    Args:
        vocab_size: Number V of symbols, >= 2: tokens 0..V-2, begin and end V-1.
        width: Width W, a multiple of ``heads``.
        layers: Number of blocks, >= 1.
        heads: Number of attention heads in each block, >= 1.
        max_length: Tokens of the longest sequence, >= 1.
        dropout: Probability in [0, 1) of dropping a unit after the embedding and in each block.

    Raises:
        ConfigError: An argument is outside its range or, in ``forward``, an input is longer than ``max_length``.

    Example:
        >>> import torch
        >>> model = TransformerLM(vocab_size=5, width=16, heads=2)
        >>> model(torch.tensor([[4, 0, 2], [4, 1, 4]])).shape  # 4 is the begin marker and the padding
        torch.Size([2, 3, 5])

    References:
        Vaswani et al.: Attention is all you need. NeurIPS 2017, arXiv:1706.03762.
        Radford et al.: Language models are unsupervised multitask learners. 2019 (layer norms before the branches).
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        max_length: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = validation.integer("vocab_size", vocab_size, least=2)
        W, A = validation.integer("width", width), validation.integer("heads", heads)
        if W % A:
            raise ConfigError(f"width must be a multiple of heads={A}, got {W}")
        rate = validation.probability("dropout", dropout)
        self.max_length = validation.integer("max_length", max_length)
        self.embedding = nn.Embedding(self.vocab_size, W)
        self.position = nn.Parameter(torch.empty(self.max_length + 1, W))  # one more for the begin marker
        self.dropout = nn.Dropout(rate)
        self.blocks = nn.ModuleList(Block(W, A, rate) for _ in range(validation.integer("layers", layers)))
        self.norm = nn.LayerNorm(W)
        self.head = nn.Linear(W, self.vocab_size)
        for weight in (self.embedding.weight, self.position):
            nn.init.normal_(weight, std=INIT_STD)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, length, V]`` of the symbol after each prefix of the input ``[batch, length]``."""
        return self.head(self._run(input)[0])

    def trace(self, input: Tensor) -> Trace:
        """Return hidden vectors ``[batch, length, W]`` and next-symbol log-probabilities; differentiable."""
        outputs, _ = self._run(input)
        return Trace(outputs, self.head(outputs).log_softmax(-1))

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes: after the begin marker."""
        outputs, caches = self._run(torch.full((n, 1), self.vocab_size - 1, device=self.position.device))
        return caches, outputs[:, -1]

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token ``[n]`` of each prefix."""
        outputs, caches = self._run(token[:, None], state[0])
        return caches, outputs[:, -1]

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        return self.head(state[1]).log_softmax(-1)

    def hidden(self, state: State) -> Tensor:
        """Return the normalised output of the last block ``[n, W]``."""
        return state[1]

    def _run(self, input: Tensor, caches: tuple[Cache, ...] = ()) -> tuple[Tensor, tuple[Cache, ...]]:
        """Return the normalised outputs ``[batch, length, W]``, and keys and values of the prefixes so far."""
        first = caches[0][0].shape[2] if caches else 0  # position of the input's first symbol
        last = first + input.shape[1]
        if last > self.max_length + 1:
            raise ConfigError(f"max_length={self.max_length} tokens is too short for a sequence of {last - 1}")
        x = self.dropout(self.embedding(input) + self.position[first:last])
        new_caches = []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x, cache = block(x, cache)
            new_caches.append(cache)
        return self.norm(x), tuple(new_caches)
