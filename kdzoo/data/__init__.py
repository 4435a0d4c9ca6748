"""Data modules whose batches are dictionaries and whose training order can be resumed at any batch."""

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.randomness import mix_seed
from kdzoo.core.samplers import EpochBatches
from kdzoo.data.adapt import AdaptedData
from kdzoo.data.arrays import ArrayData, NpzData
from kdzoo.data.derived.sampled import SampledTokenSequences
from kdzoo.data.images.celeba import CelebA
from kdzoo.data.images.cifar10 import CIFAR10
from kdzoo.data.images.digits import Digits
from kdzoo.data.images.mnist import MNIST, FashionMNIST
from kdzoo.data.images.svhn import SVHN
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitDataModule
from kdzoo.data.memory import InMemoryData
from kdzoo.data.points.gaussian_mixture import GaussianMixture
from kdzoo.data.points.old_faithful import OldFaithful
from kdzoo.data.points.point_data import PointData, Points
from kdzoo.data.sequences.generated import UHL, GeneratedTokenSequences, RandomAutomaton, Reber, Tomita
from kdzoo.data.sequences.iam_ondb import IAMOnDB
from kdzoo.data.sequences.kanji_strokes import KanjiStrokes
from kdzoo.data.sequences.one_hot_strings import OneHotStrings
from kdzoo.data.sequences.oracle_strings import OracleStrings
from kdzoo.data.sequences.pautomac import PAutomaC
from kdzoo.data.sequences.polymusic import PolyphonicMusic
from kdzoo.data.sequences.real_sequences import RealSequences, SequenceData
from kdzoo.data.sequences.sequence_files import TokenSequenceFiles
from kdzoo.data.sequences.tinyshakespeare import TinyShakespeare
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.data.text.blocks import BlockData, TextBlocks
from kdzoo.data.text.docstring_modules import DocstringModules
from kdzoo.data.text.docstrings import Docstrings
from kdzoo.data.text.shakespeare_text import ShakespeareText
from kdzoo.data.text.sst2 import SST2
from kdzoo.data.text.text_classes import ClassifiedTexts, TextClasses

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
    "DataSplit",
    "DataSplits",
    "Digits",
    "DocstringModules",
    "Docstrings",
    "EpochBatches",
    "FashionMNIST",
    "GaussianMixture",
    "GeneratedTokenSequences",
    "IAMOnDB",
    "InMemoryData",
    "KanjiStrokes",
    "NpzData",
    "OldFaithful",
    "OneHotStrings",
    "OracleStrings",
    "PAutomaC",
    "PointData",
    "Points",
    "PolyphonicMusic",
    "RandomAutomaton",
    "RealSequences",
    "Reber",
    "SampledTokenSequences",
    "SequenceData",
    "ShakespeareText",
    "SplitDataModule",
    "TextBlocks",
    "TextClasses",
    "TinyShakespeare",
    "TokenSequenceData",
    "TokenSequenceFiles",
    "Tomita",
    "mix_seed",
]
