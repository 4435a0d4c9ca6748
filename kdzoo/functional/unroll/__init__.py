"""Differentiation through an inner training loop: exact gradients in little memory.

Methods that learn a data set differentiate the weights at the end of a training with respect to the data that it used.
:func:`unroll` trains and is differentiable; its engines trade memory for computation and agree to rounding.
"""

from kdzoo.functional.unroll.batched_networks import vmap_networks
from kdzoo.functional.unroll.engine_choice import EngineChoice, choose_engine
from kdzoo.functional.unroll.engines import ENGINES
from kdzoo.functional.unroll.inner_loop import InnerLoss
from kdzoo.functional.unroll.optimizers import SGD, Adam, Momentum, Optimizer, State
from kdzoo.functional.unroll.unrolling import unroll

__all__ = [
    "ENGINES",
    "SGD",
    "Adam",
    "EngineChoice",
    "InnerLoss",
    "Momentum",
    "Optimizer",
    "State",
    "choose_engine",
    "unroll",
    "vmap_networks",
]
