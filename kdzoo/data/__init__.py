"""Data modules whose batches are dictionaries and whose training order can be resumed at any batch."""

from kdzoo.data.adapt import AdaptedData
from kdzoo.data.arrays import ArrayData, NpzData
from kdzoo.data.celeba import CelebA
from kdzoo.data.cifar10 import CIFAR10
from kdzoo.data.contract import IGNORE, Batch, BatchData
from kdzoo.data.digits import Digits
from kdzoo.data.generated import UHL, GeneratedStrings, RandomAutomaton, Reber, Tomita
from kdzoo.data.iam_ondb import IAMOnDB
from kdzoo.data.kanji_strokes import KanjiStrokes
from kdzoo.data.memory import InMemoryData
from kdzoo.data.mnist import MNIST, FashionMNIST
from kdzoo.data.old_faithful import OldFaithful
from kdzoo.data.parts import Part, Parts, PartsData
from kdzoo.data.pautomac import PAutomaC
from kdzoo.data.points import PointData, Points
from kdzoo.data.polymusic import PolyphonicMusic
from kdzoo.data.randomness import mix_seed
from kdzoo.data.real_sequences import RealSequences, SequenceData
from kdzoo.data.sampled import SampledStrings
from kdzoo.data.samplers import EpochBatches
from kdzoo.data.sequences import Corpus, StringData
from kdzoo.data.string_files import StringFiles
from kdzoo.data.svhn import SVHN
from kdzoo.data.tinyshakespeare import TinyShakespeare

__all__ = [
    "CIFAR10",
    "IGNORE",
    "MNIST",
    "SVHN",
    "UHL",
    "AdaptedData",
    "ArrayData",
    "Batch",
    "BatchData",
    "CelebA",
    "Corpus",
    "Digits",
    "EpochBatches",
    "FashionMNIST",
    "GeneratedStrings",
    "IAMOnDB",
    "InMemoryData",
    "KanjiStrokes",
    "NpzData",
    "OldFaithful",
    "PAutomaC",
    "Part",
    "Parts",
    "PartsData",
    "PointData",
    "Points",
    "PolyphonicMusic",
    "RandomAutomaton",
    "RealSequences",
    "Reber",
    "SampledStrings",
    "SequenceData",
    "StringData",
    "StringFiles",
    "TinyShakespeare",
    "Tomita",
    "mix_seed",
]
