"""A hierarchical variational autoencoder with ladder posteriors (Sonderby et al. 2016)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Graph, Hidden, Latent, Normal, Target


def ladder_vae(*, pixels: int = 64, top: int = 4, bottom: int = 8, width: int = 32) -> Graph:
    """Return z2 -> z1 -> y.

    A deterministic path leads up from y and returns a likelihood at each latent. The posterior of z1 is the normalised
    product of this likelihood and the prior.

    Args:
        pixels: Size of y, normal with a fixed deviation.
        top: Size of z2, whose prior is fixed.
        bottom: Size of z1.
        width: Units of the hidden layers.
    """
    recognition = [Hidden("up1", mlp(pixels, width, width), "y"), Hidden("up2", mlp(width, width, width), "up1")]
    nodes = [
        Latent("z2", Normal((top,)), posterior=mlp(width, 2 * top), posterior_parents="up2"),
        Latent(
            "z1",
            Normal((bottom,)),
            mlp(top, width, 2 * bottom),
            "z2",
            posterior=mlp(width, 2 * bottom),
            posterior_parents="up1",
            merged=True,
        ),
        Target("y", Normal((pixels,), scale=0.2), mlp(bottom, width, pixels), "z1", source="input"),
    ]
    return Graph(nodes, recognition)
