"""A variational autoencoder of images with known classes (Sohn, Lee & Yan 2015)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Categorical, DiscretizedLogistic, Graph, Input, Latent, Normal, Target


def conditional_vae(*, pixels: int = 64, classes: int = 10, latent: int = 6, width: int = 32) -> Graph:
    """Return (label, z) -> y, with a prior of z that is learned for each class.

    A batch holds ``input`` ``[b, pixels]`` in [0, 1] with 256 grey values, and ``target`` ``[b]``, the classes.

    Args:
        pixels: Size of y.
        classes: Number of labels.
        latent: Size of z.
        width: Units of the hidden layers.
    """
    return Graph(
        [
            Input("label", Categorical((classes,)), source="target"),
            Latent(
                "z",
                Normal((latent,)),
                mlp(classes, 2 * latent),
                "label",
                posterior=mlp(pixels + classes, width, 2 * latent),
                posterior_parents=("y", "label"),
            ),
            Target(
                "y",
                DiscretizedLogistic((pixels,)),
                mlp(latent + classes, width, 2 * pixels),
                ("z", "label"),
                source="input",
            ),
        ]
    )
