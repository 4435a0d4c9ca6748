"""Data modules whose batches are dictionaries and whose training order can be resumed at any batch."""

from kdzoo.data.adapt import AdaptedData
from kdzoo.data.arrays import ArrayData, NpzData
from kdzoo.data.celeba import CelebA
from kdzoo.data.cifar10 import CIFAR10
from kdzoo.data.contract import IGNORE, Batch, BatchData
from kdzoo.data.digits import Digits
from kdzoo.data.docstrings import Docstrings
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
from kdzoo.data.shakespeare_text import ShakespeareText
from kdzoo.data.sst2 import SST2
from kdzoo.data.string_files import StringFiles
from kdzoo.data.svhn import SVHN
from kdzoo.data.text import BlockData, TextBlocks
from kdzoo.data.text_classes import ClassifiedTexts, TextClasses
from kdzoo.data.tinyshakespeare import TinyShakespeare

__all__ = [
    "CIFAR10",
    "IGNORE",
    "MNIST",
    "SST2",
    "SVHN",
    "UHL",
    "AdaptedData",
    "ArrayData",
    "Batch",
    "BatchData",
    "BlockData",
    "CelebA",
    "ClassifiedTexts",
    "Corpus",
    "Digits",
    "Docstrings",
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
    "ShakespeareText",
    "StringData",
    "StringFiles",
    "TextBlocks",
    "TextClasses",
    "TinyShakespeare",
    "Tomita",
    "mix_seed",
]
