"""The generator of a generative adversarial network (Goodfellow et al. 2014)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Delta, Graph, Latent, Normal, Target


def gan(*, pixels: int = 64, latent: int = 8, width: int = 32) -> Graph:
    """Return z -> y, where y is a deterministic function of z.

    Such targets are compared by the w2 divergence, since kl is infinite where they differ.

    Args:
        pixels: Size of y.
        latent: Size of z, whose prior is fixed.
        width: Units of the hidden layer.
    """
    return Graph(
        [
            Latent("z", Normal((latent,), scale=1.0)),
            Target("y", Delta((pixels,)), mlp(latent, width, pixels), "z", source="input"),
        ]
    )
