"""Data sets of a few learned examples: what is learned, the networks that learn from it, and how both are judged."""

from kdzoo.synthetic.full_data import FullDataNetwork
from kdzoo.synthetic.learner import Learner
from kdzoo.synthetic.poison_set import PoisonSet
from kdzoo.synthetic.synthetic_set import SyntheticSet

__all__ = ["FullDataNetwork", "Learner", "PoisonSet", "SyntheticSet"]
