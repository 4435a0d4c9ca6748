"""Local attention initialisation: the heads of a small BERT's first layer begin by attending to neighbouring tokens.

With the usual initialisation attention is uniform, and the contribution of another token to a position is some three
hundred times smaller than that of the token there. A masked language model then learns the frequencies of tokens and,
for thousands of steps, nothing more. Here the position table begins as sinusoids (Vaswani et al. 2017, section 3.5),
and the queries of each head are its keys rotated by a fixed number of positions, so that the head attends to the token
at that distance. All of it is trained further, and the architecture is unchanged.
"""

import math
from typing import Any

import torch

# The constants were chosen so that, with 256 units, 4 heads and 128 tokens, a head gives 97 % of its attention to the
# intended token. SHORTEST_WAVE, the period in tokens of the fastest sinusoid: with 2 pi it is only 34 to 66 %, since
# neighbours differ too little. WAVE_RANGE, ratio of the longest to the shortest period: insensitive (92 to 98 % from 10
# to 10,000); 1,000 makes the longest period about 3,000 tokens, more than the texts of a small BERT.
SHORTEST_WAVE, WAVE_RANGE = math.pi, 1000.0
# Standard deviation of the positions relative to that of the token embeddings. Queries and keys see the sum of both: at
# 1 the tokens blur the positions (9 to 14 % of the attention), at 6 hardly anything is gained over 3 (99 %) and tokens
# would be fainter in all later layers.
POSITION_SCALE = 3.0
# Approximate size of the largest attention logit. At 9 the intended token gets 72 % of the attention, at 18 97 %, at 36
# 99 %; the larger it is, the smaller the gradient of the attention through the softmax.
MAX_LOGIT = 18.0


def initialise_local_attention(model: Any) -> None:
    """Set the positions and the first layer's attention of a BERT of transformers, in place.

    Its heads attend to the tokens at the distances -1, 1, -2, 2, ...

    Args:
        model: A ``BertModel`` whose heads have an even width.
    """
    attention = model.encoder.layer[0].attention
    n_heads, width = model.config.num_attention_heads, model.config.hidden_size
    head_width = width // n_heads
    # Angular frequencies in radians per token, from the fastest to the slowest.
    frequencies = 2 * math.pi / SHORTEST_WAVE * WAVE_RANGE ** -(torch.arange(width // 2) / (width // 2))
    angles = torch.arange(model.config.max_position_embeddings)[:, None] * frequencies
    waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
    # Queries and keys are scaled alike, and their product is divided by the root of the head's width.
    scale = (MAX_LOGIT / head_width**0.5) ** 0.5
    with torch.no_grad():
        positions = model.embeddings.position_embeddings.weight
        positions.zero_()[:, : waves.shape[1]] = POSITION_SCALE * model.config.initializer_range * waves
        # Every head uses the first, fastest sinusoids, which distinguish neighbouring positions best.
        key = torch.eye(head_width, width)
        for head in range(n_heads):
            rows = slice(head * head_width, (head + 1) * head_width)
            distance = (head // 2 + 1) * (1 if head % 2 else -1)
            rotation = rotation_matrix(head_width, distance * frequencies[: head_width // 2])
            attention.self.query.weight[rows] = scale * rotation @ key
            attention.self.key.weight[rows] = scale * key
        # What a head reads must not be faint again: these maps keep the norm of a vector on average, whereas BERT's own
        # deviation of 0.02 shrinks it, by a factor of 3 with 256 units, in each of the two.
        for weight in (attention.self.value.weight, attention.output.dense.weight):
            torch.nn.init.normal_(weight, std=width**-0.5)


def rotation_matrix(size: int, angles: torch.Tensor) -> torch.Tensor:
    """Return the matrix ``[size, size]`` that maps pairs (sin a, cos a) to (sin(a + angle), cos(a + angle)).

    Args:
        size: Number of rows and columns.
        angles: One angle in radians for each pair, ``[size / 2]``.

    Example:
        >>> rotation_matrix(2, torch.tensor([math.pi / 2])).round()
        tensor([[-0.,  1.],
                [-1., -0.]])
    """
    blocks = [torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) for a in angles.tolist()]
    return torch.block_diag(*blocks)[:size, :size]
