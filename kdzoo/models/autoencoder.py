"""Autoencoders of images: linear, of fully connected layers, and convolutional with a small map as code.

The encoder E turns an image x into a code z = E(x), and the decoder D recovers the image as D(z). A linear autoencoder
with the least squared error spans the same subspace as the first principal components (Baldi & Hornik 1989), although
its code need not be these components.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.models.hvae import Perceptron
from kdzoo.models.image_networks import Downsampling, Upsampling
from kdzoo.models.mlp import ACTIVATIONS

NETWORKS = ("linear", "mlp", "conv")


class Autoencoder(nn.Module):
    """An encoder and a decoder; called, it returns the reconstructions of its inputs.

    Args:
        in_shape: Shape of one image without the batch dimension.
        code: Number of values of the code; with ``conv`` number of channels of the code, which is a map, >= 1.
        network: ``linear``: one linear layer each; ``mlp``: fully connected layers with ReLU; ``conv``: strided and
            transposed convolutions, for images ``[channels, height, width]``: with ``depth=2`` the code of a 28 x 28
            image is a 7 x 7 map.
        width: Units of each hidden layer of ``mlp``, or channels of the largest feature map of ``conv``, >= 1.
        depth: Hidden layers of ``mlp``, or halvings of the image of ``conv``, in encoder and decoder each, >= 1.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many halvings.

    Example:
        >>> model = Autoencoder(in_shape=(1, 28, 28), network="conv", code=1)
        >>> model.encode(torch.zeros(2, 1, 28, 28)).shape, model(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 1, 7, 7]), torch.Size([2, 1, 28, 28]))

    References:
        Baldi, Hornik: Neural networks and principal component analysis. Neural Networks 2, 1989.
        Hinton, Salakhutdinov: Reducing the dimensionality of data with neural networks. Science 313, 2006.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        code: int = 16,
        network: str = "mlp",
        width: int = 16,
        depth: int = 2,
    ) -> None:
        super().__init__()
        shape, code = validation.integers("in_shape", in_shape), validation.integer("code", code)
        width, depth = validation.integer("width", width), validation.integer("depth", depth)
        if validation.choice("network", network, NETWORKS) == "conv":
            down, up = Downsampling(shape, width=width, depth=depth), Upsampling(shape, width=width, depth=depth)
            channels = down.out_shape[0]
            self.encoder: nn.Module = nn.Sequential(down, nn.Conv2d(channels, code, 3, padding=1))
            self.decoder: nn.Module = nn.Sequential(nn.Conv2d(code, channels, 3, padding=1), ACTIVATIONS["relu"](), up)
            return
        hidden = [width] * depth if network == "mlp" else []
        self.encoder = Perceptron([prod(shape), *hidden, code])
        self.decoder = Perceptron([code, *hidden, prod(shape)], shape)

    def encode(self, input: Tensor) -> Tensor:
        """Return the codes of images ``[n, *in_shape]``: ``[n, code]``, with ``conv`` ``[n, code, height, width]``."""
        return self.encoder(input)

    def decode(self, code: Tensor) -> Tensor:
        """Return the images ``[n, *in_shape]`` of codes."""
        return self.decoder(code)

    def forward(self, input: Tensor) -> Tensor:
        """Return the reconstructions of images ``[n, *in_shape]``."""
        return self.decode(self.encode(input))

    @property
    def directions(self) -> Tensor | None:
        """The columns ``[pixels, code]`` whose combinations a linear decoder adds to its offset; None for others."""
        layers = _linear_layers(self)
        return None if layers is None else layers[1].weight.detach()


def principal_autoencoder(in_shape: Sequence[int], mean: Tensor, directions: Tensor) -> Autoencoder:
    """Return the linear autoencoder whose code are the principal components of centred images.

    Args:
        in_shape: Shape of one image.
        mean: Mean of the images, ``[d]``.
        directions: Orthonormal columns ``[d, k]``.

    Example:
        >>> model = principal_autoencoder((2,), torch.zeros(2), torch.tensor([[0.0], [1.0]]))
        >>> model(torch.tensor([[3.0, 4.0]])).detach()
        tensor([[0., 4.]])
    """
    model = Autoencoder(in_shape=in_shape, code=directions.shape[1], network="linear")
    layers = _linear_layers(model)
    assert layers is not None
    encoder, decoder = layers
    with torch.no_grad():
        encoder.weight.copy_(directions.T)
        encoder.bias.copy_(-directions.T @ mean)
        decoder.weight.copy_(directions)
        decoder.bias.copy_(mean)
    return model


def _linear_layers(model: Autoencoder) -> tuple[nn.Linear, nn.Linear] | None:
    """Return the layers of encoder and decoder if they have one each, which is then linear; None otherwise."""
    if isinstance(model.encoder, Perceptron) and isinstance(model.decoder, Perceptron):
        layers = [*model.encoder.layers, *model.decoder.layers]
        if len(layers) == 2:
            encoder, decoder = layers
            assert isinstance(encoder, nn.Linear)
            assert isinstance(decoder, nn.Linear)
            return encoder, decoder
    return None
