"""The optional parts of the packaged kinds: which kind has which, and with the signatures of the protocols."""

import inspect

import pytest

from kdzoo.kinds import KINDS, protocols

PROTOCOLS = {
    name: member
    for name, member in vars(protocols).items()
    if getattr(member, "_is_protocol", False) and member.__module__ == protocols.__name__
}
TEXT = {"DescribesExport", "DescribesModel", "Exports"}
STRINGS = {"BindsToData", "HasReferenceScores", "PlotsPredictions"}
GENERATIVE = {
    *("BindsToData", "DescribesModel", "HasReferenceScores", "MeasuresQuickly", "PlotsModel", "PlotsPredictions"),
    *("DrawsSnapshots", "Recommends", "RestrictsControl", "Warns"),
}
PARTS = {
    "autoencoder": {"BindsToData", "HasReferenceScores", "PlotsModel", "PlotsPredictions"},
    "automaton": STRINGS | {"CountsParameters", "DescribesModel", "Exports", "PlotsModel"},
    "classifier": TEXT | {"MeasuresUnseenClasses", "PlotsModel", "PlotsPredictions"},
    "encoder": TEXT | {"BindsToData", "PlotsPredictions"},
    **dict.fromkeys(("graphical_model", "adversarial", "vae_gan", "adversarial_autoencoder"), GENERATIVE),
    "language_model": STRINGS,
    "masked_lm": TEXT | {"PlotsPredictions"},
    "poison": {"DescribesModel", "Exports", "PlotsModel", "PlotsPredictions"},
    "synthetic_set": {"DescribesModel", "Exports", "PlotsModel", "PlotsPredictions"},
}


def methods(protocol):
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_optional_parts_of_each_kind(kind):
    parts = {name for name, protocol in PROTOCOLS.items() if isinstance(kind, protocol)}
    assert parts == PARTS[kind.name]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_methods_have_the_parameters_of_the_protocol(kind):
    for protocol in PROTOCOLS.values():
        if isinstance(kind, protocol):
            for name, method in methods(protocol).items():
                expected = list(inspect.signature(method).parameters.values())[1:]
                found = list(
                    inspect.signature(vars(type(kind)).get(name) or getattr(type(kind), name)).parameters.values()
                )
                assert [(p.name, p.default) for p in found[1:]] == [(p.name, p.default) for p in expected], name


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.__name__)
def test_no_kind_inherits_from_a_protocol(protocol):
    assert not any(protocol in type(kind).__mro__ for kind in KINDS.values())


def test_an_object_without_the_method_lacks_the_part():
    assert not any(isinstance(object(), protocol) for protocol in PROTOCOLS.values())
