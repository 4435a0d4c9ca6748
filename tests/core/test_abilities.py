"""The optional abilities of packaged data modules: who has them, under the names and signatures of the protocols."""

import inspect

import pytest
import torch

import kdzoo.data
from kdzoo.core import abilities
from kdzoo.data import UHL, ArrayData, DataSplits, Digits, PointData, Points, RealSequences, SequenceData

OWNERS = {
    abilities.HasPixelScaling: {"CIFAR10", "CelebA", "Digits", "FashionMNIST", "MNIST", "SVHN"},
    abilities.HasClassNames: {"ClassifiedTexts", "DocstringModules", "SST2", "TextClasses"},
    abilities.HasTokenizer: {
        "BlockData",
        "ClassifiedTexts",
        "DocstringModules",
        "Docstrings",
        "SST2",
        "ShakespeareText",
        "TextBlocks",
        "TextClasses",
    },
    abilities.HasTokenNames: {
        "GeneratedTokenSequences",
        "PAutomaC",
        "RandomAutomaton",
        "Reber",
        "TinyShakespeare",
        "TokenSequenceData",
        "TokenSequenceFiles",
        "Tomita",
        "UHL",
    },
    abilities.HasLengths: {"IAMOnDB", "KanjiStrokes", "PolyphonicMusic", "SequenceData"},
    abilities.DrawsPictures: {"IAMOnDB", "KanjiStrokes"},
    abilities.SummarisesSamples: {"PolyphonicMusic"},
    abilities.DeclaresClassCount: set(),
}
MODULES = {
    name: member
    for name, member in vars(kdzoo.data).items()
    if isinstance(member, type) and issubclass(member, kdzoo.data.BatchData)
}


def members(protocol):
    """The names that a protocol adds to an empty one."""
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("protocol", OWNERS, ids=lambda protocol: protocol.__name__)
def test_the_data_modules_that_have_an_ability(protocol):
    found = {name for name, module in MODULES.items() if members(protocol) <= set(dir(module))}
    assert found == OWNERS[protocol]


@pytest.mark.parametrize("protocol", [abilities.DrawsPictures, abilities.SummarisesSamples])
def test_methods_have_the_signature_of_the_protocol(protocol):
    (name,) = members(protocol)
    expected = inspect.signature(vars(protocol)[name])
    for owner in OWNERS[protocol]:
        assert inspect.signature(vars(MODULES[owner])[name]) == expected


class Steps(SequenceData):
    """Two sequences of 3 and 1 steps."""

    def read(self):
        sequences = RealSequences(torch.zeros(4, 2), torch.tensor([3, 1]))
        return sequences, sequences, sequences


class Origin(PointData):
    """One point."""

    def load_splits(self):
        point = Points(torch.zeros(1, 2))
        return DataSplits(point, point, point)


ARRAYS = torch.zeros(4, 2), torch.arange(4) % 2
READY = {
    "digits": Digits(),
    "arrays": ArrayData(ARRAYS, ARRAYS, val_size=0, batch_size=2),
    "automaton": UHL(n_train=20, n_val=0, n_test=10, batch_size=2),
    "sequences": Steps(batch_size=1),
    "points": Origin(batch_size=1),
}


@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        ("digits", {"HasPixelScaling"}),
        ("arrays", set()),
        ("automaton", {"HasTokenNames"}),
        ("sequences", {"HasLengths"}),
        ("points", set()),
    ],
)
def test_isinstance_after_setup(name, protocols):
    data = READY[name]
    data.setup()
    assert {protocol.__name__ for protocol in OWNERS if isinstance(data, protocol)} == protocols
    assert isinstance(data, abilities.DeclaresAugmentation)


def test_what_the_abilities_return():
    READY["sequences"].setup()
    assert READY["sequences"].lengths.tolist() == [3, 1]
    READY["digits"].setup()
    scaling = READY["digits"].pixels
    pixels = (READY["digits"].splits.train.inputs * scaling["std"][0] + scaling["mean"][0]) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)  # 0..16, each a whole number
    READY["automaton"].setup()
    assert len(READY["automaton"].symbols) == READY["automaton"].sizes["vocab_size"] - 1
