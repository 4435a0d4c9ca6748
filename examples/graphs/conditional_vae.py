"""A variational auto-encoder whose images have a known class (Sohn, Lee & Yan 2015)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Categorical, DiscretizedLogistic, Graph, Input, Latent, Normal, Target


def conditional_vae(*, pixels: int = 64, classes: int = 10, latent: int = 6, width: int = 32) -> Graph:
    """Return (label, z) -> y, with a prior of z that is learned for each class.

    A batch holds ``input`` [b, pixels] in [0, 1] with 256 grey values, and ``target`` [b], the classes.

    Args:
        pixels: of y.
        classes: number of labels.
        latent: size of z.
        width: of the hidden layers.
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
