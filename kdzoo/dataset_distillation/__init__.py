"""Synthetic data sets of a few learned examples, the networks that are trained on them, and how both are evaluated."""

from kdzoo.dataset_distillation.full_data import FullDataNetwork
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.poison_set import PoisonSet
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet

__all__ = ["FullDataNetwork", "InnerNetwork", "PoisonSet", "SyntheticSet"]
