"""A Helmholtz machine with a target in the middle of the graph (Dayan et al. 1995)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import Bernoulli, Constant, Graph, Latent, Normal, Target


def helmholtz(*, bits: int = 2, width: int = 8) -> Graph:
    """Return z4 -> z3 -> y2 -> z2 -> z1 -> y1, the generative part.

    A batch holds ``input`` ``[b, 2]``: y1 and y2.

    Args:
        bits: Size of each latent.
        width: Units of the hidden layers.
    """
    number = Normal((1,), scale=0.5)
    return Graph(
        [
            Latent("z4", Bernoulli((bits,)), Constant(bits)),
            Latent("z3", Bernoulli((bits,)), mlp(bits, width, bits), "z4"),
            Target("y2", number, mlp(bits, width, 1), "z3", lambda batch: batch["input"][:, 1:]),
            Latent("z2", Bernoulli((bits,)), mlp(1, width, bits), "y2"),
            Latent("z1", Bernoulli((bits,)), mlp(bits, width, bits), "z2"),
            Target("y1", number, mlp(bits, width, 1), "z1", lambda batch: batch["input"][:, :1]),
        ]
    )
