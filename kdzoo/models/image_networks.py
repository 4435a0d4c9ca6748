"""Convolutional networks that map images to vectors and vectors to images, for models that encode or generate images.

Each step of :class:`Downsampling` halves the image and doubles the channels, each step of :class:`Upsampling` does the
opposite, after Radford et al. 2016 (section 3): strided convolutions instead of pooling, a norm after each but at the
pixels. :class:`ImageEncoder` and :class:`ImageDecoder` add the linear layer between the smallest feature map and a
vector.

====================  =========================================
28 x 28, ``depth=2``  28 x 28, 14 x 14, 7 x 7
8 x 8, ``depth=2``    8 x 8, 4 x 4, 2 x 2
7 x 7, ``depth=2``    7 x 7, 4 x 4, 2 x 2: sides are rounded up
====================  =========================================
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.models.convnet import NORMS
from kdzoo.models.mlp import ACTIVATIONS
from kdzoo.models.shapes import image_shape


class Downsampling(nn.Module):
    """Strided convolutions that halve an image ``depth`` times: (3 x 3 convolution, norm, activation) for each step.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image; its sides are at least 2 ** depth pixels.
        width: Channels after the first step, >= 1; every further step doubles them.
        depth: Number of steps, >= 1.
        norm: Normalisation after each convolution but the first, ``batch`` or ``instance``; None for none.
        activation: One of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid.
        conditions: Number of values of a vector that is concatenated to the channels of every pixel; 0 for none.

    Attributes:
        out_shape: Shape of the result for one image.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> Downsampling((1, 28, 28), width=16, depth=2).out_shape
        (32, 7, 7)
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        width: int = 16,
        depth: int = 2,
        norm: str | None = None,
        activation: str = "relu",
        conditions: int = 0,
    ) -> None:
        super().__init__()
        n_in, *_ = _checked(in_shape, width, depth, norm, activation)
        channels = [n_in + conditions, *(width * 2**level for level in range(depth))]
        # A norm at the pixels would remove the brightness of the image, so the first convolution has none.
        norms = [None, *[norm] * (depth - 1)]
        self.steps = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(n, m, 3, stride=2, padding=1, bias=normed is None),
                    *_norm_and_activation(m, normed, activation),
                )
                for (n, m), normed in zip(pairwise(channels), norms, strict=True)
            )
        )
        self.out_shape = (channels[-1], *sides(in_shape[1:], depth)[-1])

    def forward(self, image: Tensor, *conditions: Tensor) -> Tensor:
        """Return the feature map ``[n, *out_shape]`` of images ``[n, *in_shape]`` and vectors ``[n, k]``."""
        planes = (vector[:, :, None, None].expand(-1, -1, *image.shape[2:]) for vector in conditions)
        return self.steps(torch.cat([image, *planes], 1) if conditions else image)


class Upsampling(nn.Module):
    """Transposed convolutions that double a feature map ``depth`` times, up to an image: the mirror of Downsampling.

    The kernels have 4 x 4 weights, a multiple of the stride, since others overlap unevenly and leave the pattern of a
    chequerboard (Odena et al. 2016). A step to an odd side cuts off one row and one column.

    Args:
        out_shape: Shape ``[channels, height, width]`` of one image; its sides are at least 2 ** depth pixels.
        width: Channels before the last step, >= 1; every step halves them.
        depth: Number of steps, >= 1.
        norm: Normalisation after each convolution but the last, ``batch`` or ``instance``; None for none.
        activation: One of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid; the image itself has none.

    Attributes:
        in_shape: Shape of the feature map for one image.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> Upsampling((1, 28, 28), width=16, depth=2).in_shape
        (32, 7, 7)

    References:
        Odena, Dumoulin, Olah: Deconvolution and checkerboard artifacts. Distill, 2016.
    """

    def __init__(
        self,
        out_shape: Sequence[int],
        *,
        width: int = 16,
        depth: int = 2,
        norm: str | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        n_out, *_ = _checked(out_shape, width, depth, norm, activation)
        channels = [*(width * 2**level for level in reversed(range(depth))), n_out]
        is_last = [*[False] * (depth - 1), True]
        self.sides = sides(out_shape[1:], depth)[-2::-1]
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(n, m, 4, stride=2, padding=1, bias=last or norm is None),
                *([] if last else _norm_and_activation(m, norm, activation)),
            )
            for (n, m), last in zip(pairwise(channels), is_last, strict=True)
        )
        self.in_shape = (channels[0], *sides(out_shape[1:], depth)[-1])

    def forward(self, features: Tensor) -> Tensor:
        """Return images ``[n, *out_shape]`` for feature maps ``[n, *in_shape]``."""
        for step, (height, width) in zip(self.steps, self.sides, strict=True):
            features = step(features)[:, :, :height, :width]
        return features


class ImageEncoder(nn.Module):
    """From images to vectors: strided convolutions and a linear layer.

    Args:
        in_shape: See :class:`Downsampling`.
        out_size: Number of values of the vector, >= 1.
        width: See :class:`Downsampling`.
        depth: See :class:`Downsampling`.
        norm: See :class:`Downsampling`.
        activation: See :class:`Downsampling`.
        conditions: See :class:`Downsampling`.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> ImageEncoder((1, 8, 8), 5)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 5])

    References:
        Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative adversarial
        networks. ICLR 2016, arXiv:1511.06434.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_size: int,
        *,
        width: int = 16,
        depth: int = 2,
        norm: str | None = None,
        activation: str = "relu",
        conditions: int = 0,
    ) -> None:
        super().__init__()
        options = {"width": width, "depth": depth, "norm": norm, "activation": activation}
        self.features = Downsampling(in_shape, conditions=conditions, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(prod(self.features.out_shape), validation.integer("out_size", out_size))

    def forward(self, image: Tensor, *conditions: Tensor) -> Tensor:
        """Return vectors ``[n, out_size]`` for images ``[n, *in_shape]`` and vectors ``[n, k]``, the condition."""
        return self.head(self.features(image, *conditions).flatten(1))


class ImageDecoder(nn.Module):
    """From vectors to images: a linear layer, its norm and activation, and transposed convolutions.

    Args:
        in_size: Number of values of all vectors together, >= 1.
        out_shape: See :class:`Upsampling`.
        width: See :class:`Upsampling`.
        depth: See :class:`Upsampling`.
        norm: See :class:`Upsampling`.
        activation: See :class:`Upsampling`.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> ImageDecoder(5, (1, 8, 8))(torch.zeros(2, 5)).shape
        torch.Size([2, 1, 8, 8])

    References:
        Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative adversarial
        networks. ICLR 2016, arXiv:1511.06434.
    """

    def __init__(
        self,
        in_size: int,
        out_shape: Sequence[int],
        *,
        width: int = 16,
        depth: int = 2,
        norm: str | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        options = {"width": width, "depth": depth, "norm": norm, "activation": activation}
        self.image = Upsampling(out_shape, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(validation.integer("in_size", in_size), prod(self.image.in_shape))
        self.activation = nn.Sequential(*_norm_and_activation(self.image.in_shape[0], norm, activation))

    def forward(self, *vectors: Tensor) -> Tensor:
        """Return images ``[n, *out_shape]`` for vectors ``[n, k]``, which are concatenated."""
        features = self.head(torch.cat([vector.flatten(1) for vector in vectors], 1))
        return self.image(self.activation(features.unflatten(1, self.image.in_shape)))


def sides(side: Sequence[int], depth: int) -> list[tuple[int, ...]]:
    """Return height and width before the first halving and after each, rounded up.

    Example:
        >>> sides((28, 7), 2)
        [(28, 7), (14, 4), (7, 2)]
    """
    # -(-n // 2) rounds up, as a 3 x 3 convolution of stride 2 with a padding of 1 does.
    return [tuple(-(-length // 2**level) for length in side) for level in range(depth + 1)]


def _checked(shape: Sequence[int], width: int, depth: int, norm: str | None, activation: str) -> tuple[int, int, int]:
    """Return the shape of an image after a check of all arguments that both directions share."""
    validation.integer("width", width)
    validation.integer("depth", depth)
    if norm is not None:
        validation.choice("norm", norm, tuple(NORMS))
    validation.choice("activation", activation, tuple(ACTIVATIONS))
    return image_shape(shape, 2**depth, f"{depth} halvings")


def _norm_and_activation(channels: int, norm: str | None, activation: str) -> list[nn.Module]:
    return [*([] if norm is None else [NORMS[norm](channels)]), ACTIVATIONS[activation]()]
