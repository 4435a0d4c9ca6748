"""The generator of a conditional generative adversarial network (Mirza & Osindero 2014)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Categorical, Delta, Graph, Input, Latent, Normal, Target


def conditional_gan(*, pixels: int = 64, classes: int = 10, latent: int = 8, width: int = 32) -> Graph:
    """Return (label, z) -> y, where y is a deterministic function of both.

    Args:
        pixels: Size of y.
        classes: Number of labels, the key ``target`` of a batch.
        latent: Size of z, whose prior is fixed.
        width: Units of the hidden layer.
    """
    return Graph(
        [
            Input("label", Categorical((classes,)), source="target"),
            Latent("z", Normal((latent,), scale=1.0)),
            Target("y", Delta((pixels,)), mlp(latent + classes, width, pixels), ("z", "label"), source="input"),
        ]
    )
