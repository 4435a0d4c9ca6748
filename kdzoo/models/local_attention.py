"""A start for small BERTs: the heads of the first layer look at the tokens beside their own.

From the usual start, attention is even, and what a token hears of another is three hundred times fainter than what it
hears of itself; a masked language model then learns the frequencies of tokens and, for thousands of steps, no more.
Here positions begin as waves (Vaswani et al. 2017, section 3.5), and queries as keys that are turned by some tokens, so
that a head looks at one place beside. All of it is learned further.
"""

import math
from typing import Any

import torch

SHORTEST, RANGE = math.pi, 1000.0
"""Tokens of the shortest wave, and how many times as long the longest is."""
LOUDNESS = 3.0
"""Deviation of positions to that of tokens."""
SHARPNESS = 18.0
"""Size of the largest attention logit, about."""


def initialise_local_attention(model: Any) -> None:
    """Set positions and the first layer's attention of a `transformers` BERT, in place.

    Its heads look at the tokens at -1, 1, -2, 2, ... from their own.

    Args:
        model: A BertModel, whose heads have an even width.
    """
    attention = model.encoder.layer[0].attention
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    size = width // heads
    speeds = 2 * math.pi / SHORTEST * RANGE ** -(torch.arange(width // 2) / (width // 2))
    places = torch.arange(model.config.max_position_embeddings)[:, None] * speeds
    waves = torch.stack([places.sin(), places.cos()], -1).flatten(1)[:, :width]
    scale = (SHARPNESS / size**0.5) ** 0.5
    with torch.no_grad():
        positions = model.embeddings.position_embeddings.weight
        positions.zero_()[:, : waves.shape[1]] = LOUDNESS * model.config.initializer_range * waves
        key = torch.eye(size, width)
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            distance = (head // 2 + 1) * (1 if head % 2 else -1)
            attention.self.query.weight[rows] = scale * turned(size, distance * speeds[: size // 2]) @ key
            attention.self.key.weight[rows] = scale * key
        for weight in (attention.self.value.weight, attention.output.dense.weight):
            torch.nn.init.normal_(weight, std=width**-0.5)


def turned(size: int, angles: torch.Tensor) -> torch.Tensor:
    """Return the matrix (size, size) that turns pairs (sin a, cos a) to (sin(a + angle), cos(a + angle)).

    Example:
        >>> turned(2, torch.tensor([math.pi / 2])).round()
        tensor([[-0.,  1.],
                [-1., -0.]])
    """
    blocks = [torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) for a in angles.tolist()]
    return torch.block_diag(*blocks)[:size, :size]
