"""A convolutional network that tells real from generated strings.

Notation: V symbols, E width of the embedding, F filters of each width; strings ``[n, L]`` of symbols 0..V-1.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from kdzoo.core import validation

# Numbers of neighbouring symbols that a filter sees. Wider ones are rare in strings of some tens of symbols.
WIDTHS = (1, 2, 3, 4)


class TextDiscriminator(nn.Module):
    """Filters of several widths over embedded symbols, the largest value of each over the positions, a linear layer.

    Args:
        vocab_size: Number V of symbols, >= 2; the last one ends a string and fills its row.
        width: Width E of the embedding and number F of filters of each width, >= 1.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> TextDiscriminator(vocab_size=5)(torch.tensor([[0, 2, 4, 4], [1, 1, 3, 0]])).shape
        torch.Size([2])

    References:
        Kim: Convolutional neural networks for sentence classification. EMNLP 2014, arXiv:1408.5882.
    """

    def __init__(self, *, vocab_size: int, width: int = 64) -> None:
        super().__init__()
        width = validation.integer("width", width)
        self.embedding = nn.Embedding(validation.integer("vocab_size", vocab_size, least=2), width)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, size) for size in WIDTHS)
        self.head = nn.Linear(len(WIDTHS) * width, 1)

    def forward(self, strings: Tensor) -> Tensor:
        """Return logits ``[n]``, large for real strings, of strings ``[n, L]``."""
        embedded = self.embedding(strings).transpose(1, 2)
        # Zeros before the first symbol: every filter then sees every symbol, of strings of any length.
        features = [
            relu(layer(pad(embedded, (size - 1, 0)))).amax(2) for size, layer in zip(WIDTHS, self.filters, strict=True)
        ]
        return self.head(torch.cat(features, 1))[:, 0]
