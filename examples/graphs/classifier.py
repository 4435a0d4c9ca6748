"""A classifier: a graph without random latents; distilling it is the method of Hinton, Vinyals & Dean (2015)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Categorical, Delta, Graph, Input, Latent, Normal, Target


def classifier(*, features: int = 16, classes: int = 10, hint: int = 12, width: int = 32) -> Graph:
    """Return x -> hint -> label.

    The hint is a hidden layer, declared as a latent so that the w2 divergence can compare it (Romero et al. 2015,
    FitNets).

    Args:
        features: Size of x.
        classes: Number of labels, the key ``target`` of a batch.
        hint: Size of the compared layer, the same in teacher and student.
        width: Units of the other hidden layers.
    """
    return Graph(
        [
            Input("x", Normal((features,), scale=1.0), source="input"),
            Latent("hint", Delta((hint,)), mlp(features, width, hint), "x"),
            Target("label", Categorical((classes,)), mlp(hint, width, classes), "hint", source="target"),
        ]
    )
