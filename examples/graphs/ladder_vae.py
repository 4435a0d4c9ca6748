"""A hierarchical variational auto-encoder whose posteriors come from a ladder (Sonderby et al. 2016)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Graph, Hidden, Latent, Normal, Target


def ladder_vae(*, pixels: int = 64, top: int = 4, bottom: int = 8, width: int = 32) -> Graph:
    """Return z2 -> z1 -> y.

    Going up from y, each layer says how likely values of its latent are; going down, z1's posterior is the normalised
    product of that likelihood and the prior.

    Args:
        pixels: of y, normal with a fixed deviation.
        top: size of z2, whose prior is fixed.
        bottom: size of z1.
        width: of the hidden layers.
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
