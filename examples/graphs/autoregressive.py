"""An autoregressive model of tokens: a graph without latents, whose targets depend on those before them."""

from torch import nn

from kdzoo.graphical_models import LSTM, STATE, Categorical, GateInput, Graph, Hidden, Scan, Target


def autoregressive(*, tokens: int = 12, hidden: int = 16, steps: int = 10) -> Graph:
    """Return steps of state -> token -> state; the student reads the teacher's tokens.

    Args:
        tokens: number of different tokens; a batch holds them as ``input`` [b, T].
        hidden: units of the LSTM.
        steps: T of roll-outs that say nothing else.
    """
    nodes = [
        Target("token", Categorical((tokens,)), nn.Linear(hidden, tokens), STATE, source="input"),
        Hidden("gate_input", GateInput(tokens, hidden), "token"),
    ]
    return Graph([Scan(nodes, LSTM(hidden, "gate_input", has_gate_input=True), steps)])
