"""Convolutional ladder variational autoencoder: the image model of Chen et al. 2023.

It has five latents of 16 channels. For 32 x 32 images their sizes are 1 x 1 (the topmost), 2 x 2, 4 x 4, 8 x 8 and
16 x 16; larger images have more halvings between the two topmost latents. :mod:`kdzoo.models.hvae` documents how the
latents depend on each other.
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
"""Channels of each latent in Chen et al. 2023: 5456 latent values for the 3072 values of a 3 x 32 x 32 image."""
LEVELS = 5
"""Latents in Chen et al. 2023; five halvings bring 32 pixels to 1."""


class Block(nn.Module):
    """A residual block, relu(norm(conv(relu(norm(conv(x))))) + skip(x)), which can halve or double the size first.

    The skip connection is a 1 x 1 convolution if channels or size change. It is applied before a doubling (nearest
    neighbours), which gives the same result as after it at a quarter of the cost.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        resize: ``half`` (stride 2 in the first convolution and the skip connection), ``same`` or ``double``.

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
        # Convolutions need no bias before a batch norm, which subtracts the mean and has its own shift.
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(n_out)

    def forward(self, input: Tensor) -> Tensor:
        """Return features ``[batch, n_out, height', width']`` of an input ``[batch, n_in, height, width]``."""
        skip = self.skip(input)
        if self.doubles:
            input, skip = (F.interpolate(features, scale_factor=2, mode="nearest") for features in (input, skip))
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(input))))) + skip)

    def fold_norms_(self) -> None:
        """Move the batch norms, in eval mode, into the convolutions, which get biases; this changes the block."""
        assert isinstance(self.norm1, nn.BatchNorm2d)
        assert isinstance(self.norm2, nn.BatchNorm2d)
        self.conv1, self.norm1 = fuse_conv_bn_eval(self.conv1, self.norm1), nn.Identity()
        self.conv2, self.norm2 = fuse_conv_bn_eval(self.conv2, self.norm2), nn.Identity()


class Stage(nn.Module):
    """Two blocks for each change of size, optionally followed by a head, a 1 x 1 convolution without bias.

    Args:
        n_in: Channels of the input, without the condition.
        width: Channels of the blocks.
        resizes: How each pair of blocks begins: ``half``, ``same`` or ``double``.
        n_out: Channels of the head; None: no head.
        classes: Classes of a condition, 0 without one; the one-hot vector is concatenated to the channels of every
            pixel.
    """

    def __init__(
        self, n_in: int, width: int, resizes: Sequence[str], *, n_out: int | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        # Only the first block sees the condition, as in the code of Chen et al. 2023.
        inputs = [n_in + classes, *[width] * (len(resizes) - 1)]
        pairs = ((Block(n, width, resize), Block(width, width)) for n, resize in zip(inputs, resizes, strict=True))
        self.blocks = nn.Sequential(*(block for pair in pairs for block in pair))
        self.head = nn.Identity() if n_out is None else nn.Conv2d(width, n_out, 1, bias=False)

    def forward(self, input: Tensor, *labels: Tensor) -> Tensor:
        """Return features of an input ``[batch, n_in, height, width]`` and of one-hot classes ``[batch, classes]``.

        Without a condition there are no classes.
        """
        planes = (label[:, :, None, None].expand(-1, -1, *input.shape[2:]) for label in labels)
        return self.head(self.blocks(torch.cat([input, *planes], 1) if labels else input))


class ConvHVAE(Graph):
    """Ladder variational autoencoder of residual blocks, with or without a class as condition.

    The nodes are the latents ``z1`` (lowest) to ``z5`` and the target ``image``; with a condition also the input
    ``label``. Recognition nodes are ``u1`` to ``u5``. Every stage has two residual blocks for each change of size, and
    a 1 x 1 convolution as head; ``u1`` begins with a 5 x 5 convolution of stride 2. The topmost prior is
    N(0, (1 + 1e-6)^2), without parameters. With a condition it is learned for each class, the one-hot class is
    concatenated to the input of every stage, and ``u1`` begins with a block of stride 2 instead, as in the paper's
    model for continual learning.

    The paper's image head also returns deviations, which are counted but not used. Its numbers of parameters (width
    128: 5.386 million for 3 x 32 x 32 and 6.601 million for 3 x 64 x 64 images) are those with ``scale=None``; a fixed
    ``scale`` saves channels * width of them. Training on data needs at least two images in a batch, since batch norm in
    ``u5`` sees single pixels.

    Args:
        in_shape: Shape (channels, side, side) of one image; the side is 32, 64, 128, ... pixels.
        num_classes: Number of classes, >= 1; used, and required, only with a condition.
        width: Channels of each block, >= 1.
        scale: Deviation of the image given ``z1``, > 0; None: that of each pixel is learned. The mean is unbounded.
        conditional: Whether the model reads the batch's ``target``, a class.

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
        width = validation.integer("width", width)
        scale = None if scale is None else validation.positive("scale", scale)
        classes = condition_size(num_classes, conditional)
        label = ("label",) if classes else ()
        # Number of halvings from the image to z1, from z1 to z2, and so on. All but the last are single ones, so larger
        # images have a larger ``steps[-1]`` and ``z5`` is always 1 x 1.
        steps = [1] * (LEVELS - 1) + [side.bit_length() - LEVELS]

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
            posterior, below = nn.Conv2d(width, 2 * CHANNELS, 1, bias=False), f"u{level}"
            if level == LEVELS:
                return top_latent(f"z{level}", family.shape, classes, posterior, below)
            net = Stage(CHANNELS, width, ["double"] * steps[level], n_out=2 * CHANNELS, classes=classes)
            parents = (f"z{level + 1}", *label)
            return Latent(f"z{level}", family, net, parents, posterior=posterior, posterior_parents=below, merged=True)

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
        """Return a copy in eval mode with the batch norms moved into the convolutions; it is for rollouts only.

        Its state does not fit a newly built model, and it does not normalise in training mode.
        """
        twin = copy.deepcopy(self).eval()
        for module in twin.modules():
            if isinstance(module, Block):
                module.fold_norms_()
        return twin


def _square(in_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of a square image whose side can be halved to 1 pixel in five or more steps."""
    channels, height, width = image_shape(in_shape, 1, "")
    if height != width or height < 2**LEVELS or height & (height - 1):
        raise ConfigError(f"in_shape must be square with a side of 32, 64, 128, ... pixels, got {height} x {width}")
    return channels, height, width
