"""Networks that the example graphs share."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Concatenated(nn.Sequential):
    """Layers that are called with several tensors ``[n, ...]``, concatenated along the last dimension."""

    def forward(self, *values: Tensor) -> Tensor:
        """Return the output of the layers for the concatenated values."""
        return super().forward(torch.cat(values, -1))


def mlp(*sizes: int) -> Concatenated:
    """Return linear layers of the given sizes with ReLUs between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(before, after)]
    return Concatenated(*layers)
