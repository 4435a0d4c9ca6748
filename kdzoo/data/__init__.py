"""Data modules whose batches are dictionaries and whose training order can be resumed at any batch."""

from kdzoo.data.adapt import AdaptedData
from kdzoo.data.arrays import ArrayData, NpzData
from kdzoo.data.cifar10 import CIFAR10
from kdzoo.data.contract import IGNORE, Batch, BatchData
from kdzoo.data.digits import Digits
from kdzoo.data.memory import InMemoryData
from kdzoo.data.mnist import MNIST, FashionMNIST
from kdzoo.data.randomness import mix_seed
from kdzoo.data.samplers import EpochBatches

__all__ = [
    "CIFAR10",
    "IGNORE",
    "MNIST",
    "AdaptedData",
    "ArrayData",
    "Batch",
    "BatchData",
    "Digits",
    "EpochBatches",
    "FashionMNIST",
    "InMemoryData",
    "NpzData",
    "mix_seed",
]
