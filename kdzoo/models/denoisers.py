"""Networks that read a noisy sample and the angle of its noise, for diffusion models of points and of images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kdzoo.models.shapes import image_shape

FREQUENCIES = 16
"""Sines, and as many cosines, of an angle."""
FASTEST = 64.0
"""Largest frequency in radians per radian: angles pi/128 apart, as with 64 steps, differ by a quarter turn."""
EMBEDDING = 4
"""Units of the embedding of the angle, in multiples of the width, as in Ho et al. 2020."""
GROUPED = 4
"""Channels of each group of a group norm, as in Ho et al. 2020, who have 32 groups of 128 channels."""
SMALLEST_SIDE = 4
"""Smallest side in pixels that a halving may lead to: a 3 x 3 convolution reaches most of it."""


class AngleEmbedding(nn.Module):
    """Sines and cosines of an angle at several frequencies, and a vector such as a one-hot class, through two layers.

    Args:
        width: Units of the result.
        conditions: Size of the vector; 0 for none.
    """

    frequencies: Tensor

    def __init__(self, width: int, conditions: int) -> None:
        super().__init__()
        frequencies = torch.linspace(0, math.log(FASTEST), FREQUENCIES).exp()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + conditions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return the embedding ``[n, width]`` of angles ``[n]`` and vectors ``[n, conditions]``."""
        phase = angle[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos(), *condition], 1))


class PointDenoiser(nn.Module):
    """Fully connected residual layers on samples as vectors.

    Args:
        in_shape: Shape of one sample.
        width: Units of each hidden layer.
        depth: Hidden layers after the first one.
        conditions: Size of a vector that is given as a condition; 0 for none.
    """

    def __init__(self, in_shape: Sequence[int], width: int, depth: int, conditions: int = 0) -> None:
        super().__init__()
        size = math.prod(in_shape)
        self.embedding = AngleEmbedding(width, conditions)
        self.first = nn.Linear(size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, size)

    def forward(self, z: Tensor, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return ``[n, *in_shape]`` for samples ``[n, *in_shape]`` and angles ``[n]``."""
        embedded = self.embedding(angle, *condition)
        hidden = self.first(z.flatten(1)) + embedded
        for layer in self.hidden:
            hidden = hidden + F.silu(layer(F.silu(hidden) + embedded))
        return self.last(F.silu(hidden)).reshape(z.shape)


class ResidualBlock(nn.Module):
    """Two convolutions with group norms; the embedding of the angle scales and shifts channels after the second norm.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        embedding: Units of the embedding.

    References:
        Dhariwal, Nichol: Diffusion models beat GANs on image synthesis. NeurIPS 2021, section 3.1.
    """

    def __init__(self, n_in: int, n_out: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.embedded = nn.Linear(embedding, 2 * n_out)
        self.norm, self.second = _norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Return ``[n, n_out, h, w]`` for maps ``[n, n_in, h, w]`` and embeddings ``[n, embedding]``."""
        # After the norm, which would remove what is added to all values of a group before it.
        scale, shift = self.embedded(embedding)[:, :, None, None].chunk(2, 1)
        hidden = self.norm(self.first(image)) * (1 + scale) + shift
        return self.second(F.silu(hidden)) + self.skip(image)


class UNet(nn.Module):
    """A small U-Net: residual blocks at falling and again at rising sizes, with a connection at each size.

    The image is halved while its sides are even and the half is at least 4 pixels: 8 to 4, or 28 to 14 and 7. All sizes
    but the first have twice the channels. It has no attention: the blocks at the smallest size, of two 3 x 3
    convolutions each, reach all of it together.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image.
        width: Channels at full size.
        depth: Residual blocks at each size on the way down, and on the way up.
        conditions: Size of a vector that is given as a condition; 0 for none.

    References:
        Ronneberger, Fischer, Brox: U-Net. MICCAI 2015.
    """

    def __init__(self, in_shape: Sequence[int], width: int, depth: int, conditions: int = 0) -> None:
        super().__init__()
        channels, height, side = image_shape(in_shape, 1, "convolutions")
        embedding = EMBEDDING * width
        self.embedding = AngleEmbedding(embedding, conditions)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        halvings = 0
        while all(size % 2 == 0 and size // 2 >= SMALLEST_SIDE for size in (height, side)):
            height, side, halvings = height // 2, side // 2, halvings + 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        widths = [width, *[2 * width] * halvings]
        for level, wide in enumerate(widths):
            first = widths[max(level - 1, 0)]
            self.down.append(_blocks(first, wide, depth, embedding))
            # On the way up the maps of the way down are concatenated.
            self.up.insert(0, _blocks(2 * wide, first, depth, embedding))
        self.middle = ResidualBlock(widths[-1], widths[-1], embedding)
        self.last = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z: Tensor, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return ``[n, *in_shape]`` for images ``[n, *in_shape]`` and angles ``[n]``."""
        embedded = self.embedding(angle, *condition)
        hidden, kept = self.first(z), []
        for level, blocks in enumerate(self.down):
            hidden = F.avg_pool2d(hidden, 2) if level else hidden
            hidden = _run(blocks, hidden, embedded)
            kept.append(hidden)
        hidden = self.middle(hidden, embedded)
        for level, blocks in enumerate(self.up):
            hidden = F.interpolate(hidden, scale_factor=2.0) if level else hidden
            hidden = _run(blocks, torch.cat([hidden, kept.pop()], 1), embedded)
        return self.last(hidden)


def _blocks(n_in: int, n_out: int, depth: int, embedding: int) -> nn.ModuleList:
    """Return ``depth`` residual blocks in a row."""
    return nn.ModuleList(ResidualBlock(n_out if i else n_in, n_out, embedding) for i in range(depth))


def _run(blocks: nn.Module, hidden: Tensor, embedded: Tensor) -> Tensor:
    """Return the result of residual blocks in a row."""
    for block in blocks.children():
        hidden = block(hidden, embedded)
    return hidden


def _norm(channels: int) -> nn.GroupNorm:
    """Return a group norm with groups of ``GROUPED`` channels, or one group if they cannot be divided so."""
    return nn.GroupNorm(1 if channels % GROUPED else channels // GROUPED, channels)
