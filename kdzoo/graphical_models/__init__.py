"""Directed graphical models: nodes, rollouts from noise without parameters, and what two such models differ in."""

from kdzoo.graphical_models.discrete import gumbel_softmax, reinforce, straight_through
from kdzoo.graphical_models.divergences import DIVERGENCES, divergence, per_sample
from kdzoo.graphical_models.enumeration import enumerated_divergences
from kdzoo.graphical_models.families import Bernoulli, Categorical, Delta, DiscretizedLogistic, Family, Normal
from kdzoo.graphical_models.graph import Graph, Trace
from kdzoo.graphical_models.nodes import STATE, Constant, Hidden, Input, Latent, Node, Random, Target
from kdzoo.graphical_models.scan import LSTM, GateInput, Recurrence, Scan

__all__ = [
    "DIVERGENCES",
    "LSTM",
    "STATE",
    "Bernoulli",
    "Categorical",
    "Constant",
    "Delta",
    "DiscretizedLogistic",
    "Family",
    "GateInput",
    "Graph",
    "Hidden",
    "Input",
    "Latent",
    "Node",
    "Normal",
    "Random",
    "Recurrence",
    "Scan",
    "Target",
    "Trace",
    "divergence",
    "enumerated_divergences",
    "gumbel_softmax",
    "per_sample",
    "reinforce",
    "straight_through",
]
