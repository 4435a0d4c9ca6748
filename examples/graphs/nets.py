"""The networks of the declarations beside this file."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Joined(nn.Sequential):
    """Layers that are called with several tensors [n, ...], joined along the last dimension."""

    def forward(self, *values: Tensor) -> Tensor:
        """Return what the layers make of all values."""
        return super().forward(torch.cat(values, -1))


def mlp(*sizes: int) -> Joined:
    """Return linear layers of the given sizes, with rectifiers between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(before, after)]
    return Joined(*layers)
