"""The two networks between a sample and its code, for models that infer a code and generate from it."""

from collections.abc import Sequence
from math import prod

from torch import nn

from kdzoo.core import validation
from kdzoo.models.hvae import Perceptron
from kdzoo.models.image_networks import ImageDecoder, ImageEncoder

NETWORKS = ("mlp", "conv")


def decoder_and_encoder(
    network: str,
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    latent: int,
    classes: int,
    width: int,
    depth: int,
    norm: str | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Return a decoder of codes and an encoder of samples, which both also read a condition.

    Args:
        network: ``mlp``: fully connected layers with ReLU; ``conv``: strided and transposed convolutions, for images
            ``[channels, height, width]``.
        in_shape: Shape of one sample, the encoder's input.
        out_shape: Shape of the decoder's output, which has more values where a pixel has several parameters.
        latent: Number of values of a code, >= 1; the encoder returns twice as many, for mean and deviation.
        classes: Size of the condition, a one-hot class; 0 without one.
        width: Units of each hidden layer of ``mlp``, or channels of the largest feature map of ``conv``, >= 1.
        depth: Hidden layers of ``mlp``, or halvings of the image of ``conv``, >= 1.
        norm: Normalisation of convolutions: ``batch``, ``instance`` or None. Fully connected layers have none.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> import torch
        >>> decoder, encoder = decoder_and_encoder("conv", (1, 8, 8), (1, 8, 8), latent=3, classes=0, width=4, depth=2)
        >>> mean_and_deviation = encoder(torch.zeros(2, 1, 8, 8))
        >>> mean_and_deviation.shape, decoder(mean_and_deviation[:, :3]).shape
        (torch.Size([2, 6]), torch.Size([2, 1, 8, 8]))
    """
    width, depth = validation.integer("width", width), validation.integer("depth", depth)
    if validation.choice("network", network, NETWORKS) == "conv":
        return (
            ImageDecoder(latent + classes, out_shape, width=width, depth=depth, norm=norm),
            ImageEncoder(in_shape, 2 * latent, width=width, depth=depth, norm=norm, conditions=classes),
        )
    hidden = [width] * depth
    return (
        Perceptron([latent + classes, *hidden, prod(out_shape)], tuple(out_shape)),
        Perceptron([prod(in_shape) + classes, *hidden, 2 * latent]),
    )
