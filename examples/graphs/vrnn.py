"""A variational recurrent network for pen strokes (Chung et al. 2015)."""

from examples.graphs.nets import mlp
from kdzoo.graphical_models import LSTM, STATE, Bernoulli, Graph, Hidden, Latent, Normal, Scan, Target


def vrnn(*, latent: int = 4, features: int = 8, hidden: int = 16, steps: int = 10) -> Graph:
    """Return steps of state -> z -> (offset, pen) -> state.

    A batch holds ``input`` [b, T, 3]: two offsets and whether the pen is lifted.

    Args:
        latent: size of z.
        features: size of what is read from z and from a stroke.
        hidden: units of the LSTM.
        steps: T of roll-outs that say nothing else.
    """
    seen = features + hidden
    nodes = [
        Latent(
            "z",
            Normal((latent,)),
            mlp(hidden, features, 2 * latent),
            STATE,
            posterior=mlp(seen, 2 * latent),
            posterior_parents=("stroke", STATE),
        ),
        Hidden("code", mlp(latent, features), "z"),
        Target("offset", Normal((2,), scale=1.0), mlp(seen, 2), ("code", STATE), lambda batch: batch["input"][..., :2]),
        Target("pen", Bernoulli((1,)), mlp(seen, 1), ("code", STATE), lambda batch: batch["input"][..., 2:]),
        Hidden("stroke", mlp(3, features), ("offset", "pen")),
        Hidden("gate_input", mlp(features, 4 * hidden), "stroke"),
    ]
    return Graph([Scan(nodes, LSTM(hidden, ("gate_input", "code"), features, has_gate_input=True), steps)])
