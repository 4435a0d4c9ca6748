"""Small graphs that several test files use."""

import torch
from torch import nn

from kdzoo.graphical_models import (
    Bernoulli,
    Categorical,
    Constant,
    Delta,
    Graph,
    Input,
    Latent,
    Normal,
    Recurrence,
    Target,
)


def random(graph, spread=1.0):
    """Return the graph in double precision, all parameters drawn from N(0, spread^2)."""
    for parameter in graph.parameters():
        nn.init.normal_(parameter, std=spread)
    return graph.double()


class Curved(nn.Sequential):
    def __init__(self, before, after):
        super().__init__(nn.Linear(before, 5), nn.Tanh(), nn.Linear(5, after))


class Both(nn.Linear):
    def forward(self, *values):
        return super().forward(torch.cat(values, -1))


def machine():
    """Return bits -> y2 -> class -> y1: discrete latents, normal targets, one of them in the middle."""
    return Graph(
        [
            Latent("z2", Bernoulli((2,)), Constant(2)),
            Target("y2", Normal((1,), scale=0.5), Curved(2, 1), "z2"),
            Latent("z1", Categorical((3,)), Curved(1, 3), "y2"),
            Target("y1", Normal((1,)), Curved(3, 2), "z1"),
        ]
    )


def classes():
    """Return x -> bits -> class -> two classes."""
    return Graph(
        [
            Input("x", Normal((2,), scale=1.0)),
            Latent("z", Bernoulli((2,)), nn.Linear(2, 2), "x"),
            Target("a", Categorical((3,)), Both(4, 3), ("z", "x")),
            Latent("c", Categorical((4,)), nn.Linear(3, 4), "a"),
            Target("b", Categorical((2, 3)), nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), "c"),
        ]
    )


def linear():
    """Return (x, z) -> y1 -> (z, y1) -> y2, all affine and normal."""
    return Graph(
        [
            Input("x", Normal((2,), scale=1.0)),
            Latent("z", Normal((3,)), Constant(6)),
            Target("y1", Normal((2,), scale=0.5), Both(5, 2), ("x", "z")),
            Latent("h", Delta((4,)), Both(5, 4), ("z", "y1")),
            Target("y2", Normal((3,), scale=0.7), nn.Linear(4, 3), "h"),
        ]
    )


def pair_of(z, y, net):
    return Graph([Latent("z", z, Constant(*z.raw_shape)), Target("y", y, net, "z")])


def deviating():
    """Return a graph whose target's deviation depends on the latent."""
    return random(pair_of(Normal((2,), scale=1.0), Normal((2,)), nn.Linear(2, 4)))


def straight():
    return random(pair_of(Normal((2,), scale=1.0), Normal((2,), scale=0.5), nn.Linear(2, 2)))


def curved():
    return pair_of(Normal((2,), scale=1.0), Normal((2,), scale=0.5), Curved(2, 2))


def bits(size):
    return pair_of(Bernoulli((size,)), Bernoulli((2,)), nn.Linear(size, 2))


def mixed():
    nodes = [Latent("z", Normal((1,), scale=1.0)), Latent("b", Bernoulli((1,)), nn.Linear(1, 1), "z")]
    return Graph([*nodes, Target("y", Bernoulli((1,)), nn.Linear(1, 1), "b")])


class Last(Recurrence):
    """The state is the last value of one node."""

    def __init__(self, parents, size):
        super().__init__(parents)
        self.size = size

    def initial(self, rows, like):
        return like.new_zeros(rows, self.size)

    def forward(self, state, value):
        return value
