"""The decoder of an autoencoder that compares images by features of a discriminator (Larsen et al. 2016)."""

from torch import nn

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Delta, Graph, Hidden, Latent, Normal, Target


def vae_gan(features: nn.Module, size: int, *, pixels: int = 64, latent: int = 8, width: int = 32) -> Graph:
    """Return z -> image -> (y, features).

    Args:
        features: Features of the discriminator, called with images ``[b, pixels]``; the same for teacher and student.
        size: Number of features, normal with deviation 1.
        pixels: Size of y.
        latent: Size of z, whose prior is fixed.
        width: Units of the hidden layer.
    """
    return Graph(
        [
            Latent("z", Normal((latent,), scale=1.0)),
            Hidden("image", mlp(latent, width, pixels), "z"),
            Target("y", Delta((pixels,)), nn.Identity(), "image", source="input"),
            Target("features", Normal((size,), scale=1.0), features, "image"),
        ]
    )
