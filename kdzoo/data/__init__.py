"""Data modules whose batches are dictionaries and whose training order can be resumed at any batch."""

from kdzoo.data.adapt import AdaptedData
from kdzoo.data.arrays import ArrayData, NpzData
from kdzoo.data.cifar10 import CIFAR10
from kdzoo.data.contract import IGNORE, Batch, BatchData
from kdzoo.data.digits import Digits
from kdzoo.data.generated import UHL, GeneratedStrings, RandomAutomaton, Reber, Tomita
from kdzoo.data.memory import InMemoryData
from kdzoo.data.mnist import MNIST, FashionMNIST
from kdzoo.data.pautomac import PAutomaC
from kdzoo.data.randomness import mix_seed
from kdzoo.data.sampled import SampledStrings
from kdzoo.data.samplers import EpochBatches
from kdzoo.data.sequences import Corpus, StringData
from kdzoo.data.string_files import StringFiles
from kdzoo.data.tinyshakespeare import TinyShakespeare

__all__ = [
    "CIFAR10",
    "IGNORE",
    "MNIST",
    "UHL",
    "AdaptedData",
    "ArrayData",
    "Batch",
    "BatchData",
    "Corpus",
    "Digits",
    "EpochBatches",
    "FashionMNIST",
    "GeneratedStrings",
    "InMemoryData",
    "NpzData",
    "PAutomaC",
    "RandomAutomaton",
    "Reber",
    "SampledStrings",
    "StringData",
    "StringFiles",
    "TinyShakespeare",
    "Tomita",
    "mix_seed",
]
