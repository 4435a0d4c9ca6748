"""Convolutional ladder variational autoencoder: the image model of Chen et al. 2023.

Five latents of 16 channels: for 32 x 32 images 1 x 1 (the topmost), 2 x 2, 4 x 4, 8 x 8 and 16 x 16; larger images have
more halvings between the two topmost. How the latents depend on each other is told in :mod:`kdzoo.models.hvae`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph, Hidden, Latent, Normal, Target
from kdzoo.models.hvae import SCALE, condition_nodes, condition_size, top_latent
from kdzoo.models.shapes import image_shape

CHANNELS = 16
LEVELS = 5


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + skip(x)), the input halved or doubled first.

    The skip is a 1 x 1 convolution where channels or size change. Before a doubling (nearest neighbours) it gives the
    same as after it, and costs a quarter.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        resize: `half` (a stride of 2 in the first convolution and the skip), `same` or `double`.

    Example:
        >>> import torch
        >>> Block(4, 8, "double")(torch.zeros(1, 4, 3, 3)).shape
        torch.Size([1, 8, 6, 6])
    """

    def __init__(self, n_in: int, n_out: int, resize: str = "same") -> None:
        super().__init__()
        self.doubles, stride = resize == "double", 2 if resize == "half" else 1
        is_plain = resize == "same" and n_in == n_out
        self.skip = nn.Identity() if is_plain else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(n_out)

    def forward(self, input: Tensor) -> Tensor:
        """Features (batch, n_out, height', width') of input (batch, n_in, height, width)."""
        skip = self.skip(input)
        if self.doubles:
            input, skip = (F.interpolate(one, scale_factor=2, mode="nearest") for one in (input, skip))
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(input))))) + skip)

    def fold(self) -> None:
        """Move the norms of eval mode into the convolutions, which get biases."""
        for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
            setattr(self, conv, fuse_conv_bn_eval(getattr(self, conv), getattr(self, norm)))
            setattr(self, norm, nn.Identity())


class Stage(nn.Module):
    """Two blocks for each change of size, and a 1 x 1 convolution without bias as head if wanted.

    Args:
        n_in: Channels of the first input.
        width: Channels of the blocks.
        resizes: How each pair of blocks begins: `half`, `same` or `double`.
        n_out: Channels of the head; None: no head.
        classes: Classes of a condition; its one-hot vector is joined to the channels of every pixel.
    """

    def __init__(
        self, n_in: int, width: int, resizes: Sequence[str], *, n_out: int | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        inputs = [n_in + classes, *[width] * (len(resizes) - 1)]
        pairs = ((Block(n, width, resize), Block(width, width)) for n, resize in zip(inputs, resizes, strict=True))
        self.blocks = nn.Sequential(*(block for pair in pairs for block in pair))
        self.head = nn.Identity() if n_out is None else nn.Conv2d(width, n_out, 1, bias=False)

    def forward(self, input: Tensor, *labels: Tensor) -> Tensor:
        """Features of input (batch, n_in, height, width) and, with a condition, of one-hot classes (batch, classes)."""
        planes = (label[:, :, None, None].expand(-1, -1, *input.shape[2:]) for label in labels)
        return self.head(self.blocks(torch.cat([input, *planes], 1) if labels else input))


class ConvHVAE(Graph):
    """Ladder variational autoencoder of residual blocks, with or without a class as condition.

    Nodes: latents `z1` (lowest) to `z5` and the target `image`; with a condition the input `label`. Recognition nodes
    `u1` to `u5`. Every stage has two residual blocks for each change of size, and a head of a 1 x 1 convolution; `u1`
    begins with a 5 x 5 convolution of stride 2. The topmost prior is N(0, (1 + 1e-6)^2), without parameters. With a
    condition it is learned for each class, the one-hot class is joined to the input of every stage, and `u1` begins
    with a block of stride 2 instead, as in the paper's model for continual learning.

    The paper's image head also returns deviations, which it does not use but counts: its numbers of parameters (width
    128: 5.386 million for 3 x 32 x 32 and 6.601 million for 3 x 64 x 64 images) are those with `scale=None`; with a
    fixed `scale` there are channels * width fewer. Training on data needs two images in a batch, since `u5` normalises
    single pixels.

    Args:
        in_shape: Shape (channels, side, side) of one image; the side is 32, 64, 128, ... pixels.
        num_classes: Number of classes, >= 1; only used, and then needed, with a condition.
        width: Channels of each block, >= 1.
        scale: Deviation of the image given `z1`, > 0; None: each pixel's is learned. The mean is unbounded.
        conditional: Whether the batch's `target`, a class, is given to the model.

    Raises:
        ConfigError: If an argument is outside its range, or there is a condition without classes.

    Example:
        >>> import torch
        >>> model = ConvHVAE(in_shape=(3, 32, 32), width=4)
        >>> {name: tuple(noise.shape) for name, noise in model.noise(2).items()}["z4"]
        (2, 16, 2, 2)

    References:
        Chen, Liang, Zeng, Yao, Shao: A unified knowledge distillation framework for deep directed graphical models.
        CVPR 2023.
        Sonderby, Raiko, Maaloe, Sonderby, Winther: Ladder variational autoencoders. NIPS 2016, arXiv:1602.02282.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int | None = None,
        width: int = 16,
        scale: float | None = SCALE,
        conditional: bool = False,
    ) -> None:
        shape = channels, side, _ = _square(in_shape)
        width, scale = (
            validation.integer("width", width),
            None if scale is None else validation.positive("scale", scale),
        )
        classes = condition_size(num_classes, conditional)
        label = ("label",) if classes else ()
        steps = [1] * (LEVELS - 1) + [side.bit_length() - LEVELS]  # halvings from each level to the one above

        def recognition(level: int) -> Hidden:
            below = "image" if level == 1 else f"u{level - 1}"
            if level > 1:
                net: nn.Module = Stage(width, width, ["half"] * steps[level - 1], classes=classes)
            elif classes:
                net = Stage(channels, width, ["half"], classes=classes)
            else:
                net = nn.Sequential(nn.Conv2d(channels, width, 5, stride=2, padding=2), Stage(width, width, ["same"]))
            return Hidden(f"u{level}", net, (below, *label))

        def latent(level: int) -> Latent:
            pixels = side >> sum(steps[:level])
            family = Normal((CHANNELS, pixels, pixels))
            posterior, given = nn.Conv2d(width, 2 * CHANNELS, 1, bias=False), f"u{level}"
            if level == LEVELS:
                return top_latent(f"z{level}", family.shape, classes, posterior, given)
            net = Stage(CHANNELS, width, ["double"] * steps[level], n_out=2 * CHANNELS, classes=classes)
            parents = (f"z{level + 1}", *label)
            return Latent(f"z{level}", family, net, parents, posterior=posterior, posterior_parents=given, merged=True)

        image = Normal(shape, scale)
        net = Stage(CHANNELS, width, ["double"] * steps[0], n_out=image.raw_shape[0], classes=classes)
        levels = range(1, LEVELS + 1)
        super().__init__(
            [
                *condition_nodes(classes),
                *(latent(level) for level in reversed(levels)),
                Target("image", image, net, ("z1", *label), source="input"),
            ],
            [recognition(level) for level in levels],
        )

    def fold_norms(self) -> "ConvHVAE":
        """Return a faster copy in eval mode, its norms moved into the convolutions; it is for roll-outs only.

        Its state does not fit a model that is built anew, and in training mode it does not normalise.
        """
        twin = copy.deepcopy(self).eval()
        for module in twin.modules():
            if isinstance(module, Block):
                module.fold()
        return twin


def _square(in_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of an image whose side can be halved to 1 pixel, five times or more."""
    channels, height, width = image_shape(in_shape, 1, "")
    if height != width or height < 2**LEVELS or height & (height - 1):
        raise ConfigError(f"in_shape must be square with a side of 32, 64, 128, ... pixels, got {height} x {width}")
    return channels, height, width
