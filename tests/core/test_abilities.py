"""The optional abilities of packaged data modules and models: who has them, under the names, signatures and results
that the protocols document.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import sys
import typing
from functools import cache

import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

import kdzoo.data
import kdzoo.models
from kdzoo.automata.baselines import LanguageModelModule
from kdzoo.automata.ngram import ngram
from kdzoo.automata.pfa import PFA
from kdzoo.core import abilities
from kdzoo.data import UHL, ArrayData, DataSplits, Digits, PointData, Points, RealSequences, SequenceData
from kdzoo.graphical_models import Normal
from kdzoo.models import (
    GAN,
    HVAE,
    MLP,
    MPS,
    RNNLM,
    VAE,
    VRNN,
    Autoencoder,
    Bert,
    CausalLM,
    ConvHVAE,
    ConvNet,
    Diffusion,
    Ensemble,
    HelmholtzMachine,
    HFModel,
    LeNet,
    LMEnsemble,
    MPSClassifier,
    PatchMPS,
    ResNet,
    StackedMPS,
    StrokeVRNN,
    Transformer,
    TransformerLM,
    TruncatedTransformer,
    VectorVRNN,
)
from kdzoo.tensor_networks import Whitened, make_feature_map
from kdzoo.text.language_model import Trace
from kdzoo.text.token_sequences import TokenSequences

FOR_USERS = {abilities.DeclaresClassCount}
"""Protocols of data that the package has no need to implement: its own data modules know their classes otherwise."""
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
        "OracleStrings",
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
    abilities.SummarisesSamples: {"OneHotStrings", "PolyphonicMusic"},
    abilities.HasModes: {"GaussianMixture"},
    abilities.HasOracle: {"OracleStrings"},
    abilities.DeclaresClassCount: set(),
    abilities.DeclaresIgnoreIndex: {
        "ArrayData",
        "CIFAR10",
        "Digits",
        "FashionMNIST",
        "InMemoryData",
        "MNIST",
        "NpzData",
        "SVHN",
    },
}
MODEL_OWNERS = {
    abilities.CalibratesOnInputs: {
        *("Diffusion", "MPS", "MPSBase", "MPSClassifier", "PatchMPS"),
        # The feature maps of chains, which the chains calibrate in turn.
        *("CosSin", "FeatureMap", "Legendre", "Pixels", "Polynomial", "Trainable", "Whitened"),
    },
    abilities.EncodesAndDecodes: {"Autoencoder"},
    abilities.FoldsNorms: {"ConvHVAE"},
    abilities.HasLogDensity: {"HelmholtzMachine"},
    abilities.HasExactDivergence: {"HelmholtzMachine"},
    abilities.TracesInParallel: {"CausalLM", "LMEnsemble", "OracleLSTM", "PFA", "RNNLM", "TransformerLM"},
    abilities.HasVocabularySize: {
        *("CausalLM", "LMEnsemble", "LanguageModelModule", "OracleLSTM", "PFA", "RNNLM", "TransformerLM"),
        *("Bert", "HFModel", "Transformer", "TruncatedTransformer"),
    },
    abilities.DeclaresTokenizer: {"Bert", "HFModel", "Transformer", "TruncatedTransformer"},
    abilities.DescribesArchitecture: {"Bert", "HFModel", "Transformer", "TruncatedTransformer"},
    abilities.LoadsPretrained: {"CausalLM", "HFModel", "OracleLSTM"},
    abilities.InitialisesFromTeacher: {"TruncatedTransformer"},
    abilities.StartsFromLayers: {"TruncatedTransformer"},
    abilities.HasLearnedSizes: {
        *("MPS", "MPSBase", "MPSClassifier", "PatchMPS", "StackedMPS"),
        *("PFA", "TruncatedTransformer"),
    },
    abilities.CombinesMembers: {"Ensemble", "LMEnsemble"},
}
MODULES = {
    name: member
    for name, member in vars(kdzoo.data).items()
    if isinstance(member, type) and issubclass(member, kdzoo.data.BatchData)
}


def members(protocol):
    """Return the names that a protocol and its bases ask for: methods, properties and annotated attributes."""
    bases = [base for base in protocol.__mro__ if base.__module__ == abilities.__name__]
    names = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    return {name for name in names if not name.startswith("_")}


def test_every_protocol_is_listed_and_has_a_packaged_owner():
    protocols = {
        member
        for member in vars(abilities).values()
        if inspect.isclass(member) and member.__module__ == abilities.__name__
    }
    # Every packaged data module says whether it is augmented; test_isinstance_after_setup looks.
    assert protocols == {*OWNERS, *MODEL_OWNERS, abilities.DeclaresAugmentation}
    without = {protocol for protocol, names in {**OWNERS, **MODEL_OWNERS}.items() if not names}
    assert without == FOR_USERS
    assert set(RESULTS) == set(MODEL_OWNERS)


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


class TwoClasses(LightningDataModule):
    """A user's data module that states its number of classes."""

    num_classes = 2


def test_a_users_data_module_may_state_its_number_of_classes():
    assert isinstance(TwoClasses(), abilities.DeclaresClassCount)
    assert not isinstance(LightningDataModule(), abilities.DeclaresClassCount)


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
        ("digits", {"DeclaresIgnoreIndex", "HasPixelScaling"}),
        ("arrays", {"DeclaresIgnoreIndex"}),
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


# ---------------------------------------------------------------- models


@cache
def model_classes():
    """Return the modules of torch that the package defines, some of which share a name."""
    names = [module.name for module in pkgutil.walk_packages(kdzoo.__path__, "kdzoo.") if "__main__" not in module.name]
    classes = {
        member for name in names for member in vars(importlib.import_module(name)).values() if inspect.isclass(member)
    }
    return {member for member in classes if issubclass(member, nn.Module) and member.__module__.startswith("kdzoo.")}


@cache
def own_members(model_class):
    """Return the names that the text of a class defines in its body or sets on ``self``."""
    tree = ast.parse(inspect.getsource(sys.modules[model_class.__module__]))
    (body,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == model_class.__name__)
    names = set()
    for node in ast.walk(body):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_set and isinstance(node.value, ast.Name) and node.value.id == "self":
            names.add(node.attr)
    for node in body.body:
        names |= {node.name} if isinstance(node, ast.FunctionDef) else set()
        names |= {node.target.id} if isinstance(node, ast.AnnAssign) else set()
    return names


def has_members(model_class, protocol):
    """Return whether a class, or a class of the package that it derives from, has all members of a protocol."""
    bases = [base for base in model_class.__mro__ if base.__module__.startswith("kdzoo.")]
    return members(protocol) <= set().union(*map(own_members, bases))


@pytest.mark.parametrize("protocol", MODEL_OWNERS, ids=lambda protocol: protocol.__name__)
def test_the_models_that_have_an_ability(protocol):
    """The source is read, since the class does not have the attributes that its constructor sets."""
    found = [model_class.__name__ for model_class in model_classes() if has_members(model_class, protocol)]
    assert sorted(found) == sorted(MODEL_OWNERS[protocol])


def returned(function):
    """Return the class of a function's result according to its annotation; None and Any as they are."""
    hint = typing.get_type_hints(function)["return"]
    return None if hint is type(None) else typing.get_origin(hint) or hint


def is_kind_of(found, expected):
    """Return whether a result of one class is one of the other, where Any is every class but None."""
    if found is None or expected is None:
        return found is expected
    return expected is typing.Any or found is typing.Any or issubclass(found, expected)


@pytest.mark.parametrize(
    ("protocol", "owner"), [(protocol, name) for protocol, names in MODEL_OWNERS.items() for name in sorted(names)]
)
def test_models_have_the_signatures_of_the_protocol(protocol, owner):
    (model_class,) = (each for each in model_classes() if each.__name__ == owner)
    for name in members(protocol):
        expected = inspect.getattr_static(protocol, name, None)
        found = inspect.getattr_static(model_class, name, None)
        if isinstance(expected, property | None):  # an attribute may be a property, or be set by the constructor
            assert found is None or isinstance(found, property), name
        else:
            assert inspect.isfunction(found), name
            parameters = [
                [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]
                for signature in map(inspect.signature, (found, expected))
            ]
            assert parameters[0] == parameters[1], name
        if found is not None and expected is not None:
            pair = [member.fget if isinstance(member, property) else member for member in (found, expected)]
            assert is_kind_of(*map(returned, pair)), name


V, SIDE = 5, {"in_shape": (1, 4, 4), "num_classes": 3}
TINY = {"vocab_size": 12, "hidden_size": 8, "layers": 2, "heads": 2, "max_length": 8, "tokenizer": "fingerprint"}


def saved_bert(folder):
    """Save a BERT without a head, and return the classifier that is built from it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=12, **sizes)).save_pretrained(folder / "bert")
    return HFModel(str(folder / "bert"), num_classes=3)


def new_gpt(folder):
    """Write the configuration of a GPT-2, and return the new model that is built from it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16, vocab_size=V)
    config.to_json_file(folder / "config.json")
    return CausalLM(str(folder / "config.json"))


BUILD = {
    "Autoencoder": lambda _: Autoencoder(in_shape=(1, 4, 4), code=3),
    "Bert": lambda _: bert(),
    "CausalLM": new_gpt,
    "ConvHVAE": lambda _: ConvHVAE(in_shape=(1, 32, 32), width=2),
    "ConvNet": lambda _: ConvNet(**SIDE),
    "Diffusion": lambda _: Diffusion(in_shape=(16,), width=4),
    "Ensemble": lambda _: Ensemble([nn.Linear(2, 3), nn.Linear(2, 3)], [3, 1]),
    "GAN": lambda _: GAN(in_shape=(1, 8, 8), width=4),
    "HFModel": saved_bert,
    "HVAE": lambda _: HVAE(in_shape=(1, 4, 4)),
    "HelmholtzMachine": lambda _: HelmholtzMachine(in_shape=(2,)),
    "LMEnsemble": lambda _: LMEnsemble([RNNLM(vocab_size=V), RNNLM(vocab_size=V, cell="lstm")], [3, 1]),
    "LanguageModelModule": lambda _: LanguageModelModule(ngram(TokenSequences.of([[0, 1]]), 2, V)),
    "LeNet": lambda _: LeNet(in_shape=(1, 28, 28), num_classes=3),
    "MLP": lambda _: MLP(**SIDE),
    "MPS": lambda _: MPS(16, 3),
    "MPSClassifier": lambda _: MPSClassifier(**SIDE),
    "PFA": lambda _: PFA(vocab_size=V, states=2),
    "PatchMPS": lambda _: PatchMPS(**SIDE, patch=2),
    "RNNLM": lambda _: RNNLM(vocab_size=V),
    "ResNet": lambda _: ResNet(in_shape=(1, 8, 8), num_classes=3),
    "StackedMPS": lambda _: StackedMPS(**SIDE),
    "StrokeVRNN": lambda _: StrokeVRNN(in_shape=(4, 3), width=8, hidden=8),
    "Transformer": lambda _: Transformer(bert().model, "mlm"),
    "TransformerLM": lambda _: TransformerLM(vocab_size=V),
    "TruncatedTransformer": lambda _: TruncatedTransformer(teacher_architecture=bert().architecture),
    "VAE": lambda _: VAE(in_shape=(1, 4, 4), latent=2, width=4),
    "VRNN": lambda _: VRNN({"y": (Normal((2,)), "input")}, steps=3, latents=2, width=8, hidden=8),
    "VectorVRNN": lambda _: VectorVRNN(in_shape=(4, 3), width=8, hidden=8),
    "Whitened": lambda _: Whitened(make_feature_map("polynomial", 16), 16),
}


def bert():
    pytest.importorskip("transformers")
    return Bert(**TINY)


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    return BUILD[request.param](tmp_path_factory.mktemp("model"))


def test_every_packaged_model_is_built_here():
    packaged = {name for name in kdzoo.models.__all__ if inspect.isclass(getattr(kdzoo.models, name))}
    assert packaged <= set(BUILD)
    elsewhere = set(BUILD) - packaged
    assert elsewhere == {"LanguageModelModule", "PFA", "Whitened"}


@pytest.mark.parametrize("model", BUILD, indirect=True)
def test_isinstance_agrees_with_the_members(model):
    found = {protocol.__name__ for protocol in MODEL_OWNERS if isinstance(model, protocol)}
    assert found == {protocol.__name__ for protocol, names in MODEL_OWNERS.items() if type(model).__name__ in names}
    for protocol in MODEL_OWNERS:
        assert isinstance(model, protocol) == all(hasattr(model, name) for name in members(protocol))


def calibrates(model):
    inputs = torch.rand(9, 16)
    assert model.calibrate(inputs) is None


def folds_norms(model):
    before = {name: value.clone() for name, value in model.train().state_dict().items()}
    folded = model.fold_norms()
    assert type(folded) is type(model)
    assert folded is not model
    assert not folded.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def encodes_and_decodes(model):
    codes = model.encode(torch.zeros(5, 1, 4, 4))
    assert codes.shape == (5, 3)
    assert model.decode(codes).shape == (5, 1, 4, 4)


def has_log_density(model):
    density = model.log_density(torch.zeros(4, 2))
    assert isinstance(density, Tensor)
    assert density.shape == (4,)


def has_exact_divergence(model):
    divergence = model.divergence_from(model)
    assert type(divergence) is float
    assert divergence == pytest.approx(0, abs=1e-6)


def traces(model):
    trace = model.trace(torch.tensor([[V - 1, 0, 1], [V - 1, 1, 0]]))
    assert isinstance(trace, Trace)
    assert trace.hidden.shape[:2] == (2, 3)
    assert trace.log_probs.shape == (2, 3, V)


def has_vocabulary_size(model):
    assert type(model.vocab_size) is int
    assert model.vocab_size in (V, TINY["vocab_size"])


def declares_tokenizer(model):
    assert model.tokenizer == (TINY["tokenizer"] if type(model) is Bert else None)


def describes_architecture(model):
    architecture = model.architecture
    assert isinstance(architecture, dict)
    assert json.loads(json.dumps(architecture)) == architecture


def loads_pretrained(model):
    assert isinstance(model.new_parameters, tuple)
    assert model.new_parameters  # both are built without a part of their weights
    assert set(model.new_parameters) <= {name for name, _ in model.model.named_parameters()}


def initialises_from_teacher(model):
    teacher = bert()
    assert model.check_init_from_teacher(teacher, None) is None
    assert model.init_from_teacher(teacher, None) is None


def starts_from_layers(model):
    assert all(isinstance(layer, int) for layer in model.chosen_layers)
    assert isinstance(model.chosen_layers, tuple)
    assert model.search is None
    assert isinstance(model.init_note, str)


def has_learned_sizes(model):
    parameters = inspect.signature(type(model)).parameters
    takes_others = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    assert isinstance(model.learned_sizes, dict)
    assert model.learned_sizes
    assert takes_others or set(model.learned_sizes) <= set(parameters)


def combines_members(model):
    pairs = model.weighted_members()
    assert isinstance(pairs, list)
    assert all(isinstance(member, nn.Module) and weight >= 0 for member, weight in pairs)
    assert [weight for _, weight in pairs] == [0.75, 0.25]


RESULTS = {
    abilities.CalibratesOnInputs: calibrates,
    abilities.EncodesAndDecodes: encodes_and_decodes,
    abilities.FoldsNorms: folds_norms,
    abilities.HasLogDensity: has_log_density,
    abilities.HasExactDivergence: has_exact_divergence,
    abilities.TracesInParallel: traces,
    abilities.HasVocabularySize: has_vocabulary_size,
    abilities.DeclaresTokenizer: declares_tokenizer,
    abilities.DescribesArchitecture: describes_architecture,
    abilities.LoadsPretrained: loads_pretrained,
    abilities.InitialisesFromTeacher: initialises_from_teacher,
    abilities.StartsFromLayers: starts_from_layers,
    abilities.HasLearnedSizes: has_learned_sizes,
    abilities.CombinesMembers: combines_members,
}
USES = [(name, protocol) for name in BUILD for protocol, names in MODEL_OWNERS.items() if name in names]


@pytest.mark.parametrize(("model", "protocol"), USES, indirect=["model"])
def test_what_the_abilities_of_models_return(model, protocol):
    RESULTS[protocol](model)
