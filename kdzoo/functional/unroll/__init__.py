"""Differentiating through an inner training: exact gradients in little memory."""

from kdzoo.functional.unroll.batched_networks import batched
from kdzoo.functional.unroll.engine_choice import Choice, choose
from kdzoo.functional.unroll.engines import ENGINES
from kdzoo.functional.unroll.inner_loop import InnerLoss
from kdzoo.functional.unroll.optimizers import SGD, Adam, Momentum, Optimizer, State
from kdzoo.functional.unroll.unrolling import unroll

__all__ = [
    "ENGINES",
    "SGD",
    "Adam",
    "Choice",
    "InnerLoss",
    "Momentum",
    "Optimizer",
    "State",
    "batched",
    "choose",
    "unroll",
]
