"""An autoregressive model of tokens: a graph without latents, in which each target depends on the earlier ones."""

from torch import nn

from kdzoo.graphical_models import LSTM, STATE, Categorical, GateInput, Graph, Hidden, Scan, Target


def autoregressive(*, tokens: int = 12, hidden: int = 16, steps: int = 10) -> Graph:
    """Return a sequence with steps state -> token -> state; a student reads the teacher's tokens.

    Args:
        tokens: Number of different tokens; a batch holds them as ``input`` ``[b, T]``.
        hidden: Units of the LSTM.
        steps: Default number of steps T.
    """
    nodes = [
        Target("token", Categorical((tokens,)), nn.Linear(hidden, tokens), STATE, source="input"),
        Hidden("gate_input", GateInput(tokens, hidden), "token"),
    ]
    return Graph([Scan(nodes, LSTM(hidden, "gate_input", has_gate_input=True), steps)])
