"""A variational recurrent network for pen strokes (Chung et al. 2015)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import LSTM, STATE, Bernoulli, Graph, Hidden, Latent, Normal, Scan, Target


def vrnn(*, latent: int = 4, features: int = 8, hidden: int = 16, steps: int = 10) -> Graph:
    """Return a sequence with steps state -> z -> (offset, pen) -> state.

    A batch holds ``input`` ``[b, T, 3]``: two offsets and whether the pen is lifted.

    Args:
        latent: Size of z.
        features: Size of the features of z and of a stroke.
        hidden: Units of the LSTM.
        steps: Default number of steps T.
    """
    read = features + hidden
    nodes = [
        Latent(
            "z",
            Normal((latent,)),
            mlp(hidden, features, 2 * latent),
            STATE,
            posterior=mlp(read, 2 * latent),
            posterior_parents=("stroke", STATE),
        ),
        Hidden("code", mlp(latent, features), "z"),
        Target("offset", Normal((2,), scale=1.0), mlp(read, 2), ("code", STATE), lambda batch: batch["input"][..., :2]),
        Target("pen", Bernoulli((1,)), mlp(read, 1), ("code", STATE), lambda batch: batch["input"][..., 2:]),
        Hidden("stroke", mlp(3, features), ("offset", "pen")),
        Hidden("gate_input", mlp(features, 4 * hidden), "stroke"),
    ]
    return Graph([Scan(nodes, LSTM(hidden, ("gate_input", "code"), features, has_gate_input=True), steps)])
