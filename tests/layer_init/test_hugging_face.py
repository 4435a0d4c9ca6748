"""Access to objects of the library transformers: attributes that may be missing, and classes by their name."""

import sys

import pytest
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init.hugging_face import attribute, base_prefix, config_above, model_class, number_of_layers
from tests.layer_init.cases import CONFIGS, Tagger, made, needs_transformers


@needs_transformers
@pytest.mark.parametrize("family", CONFIGS)
def test_the_number_of_layers_is_found_by_whatever_name(family):
    assert number_of_layers(made(family).config) == 4


def test_an_attribute_that_is_missing_is_none():
    linear = nn.Linear(2, 3)
    assert attribute(linear, "out_features") == 3
    assert attribute(linear, "config") is None
    assert number_of_layers(attribute(linear, "config")) is None


@needs_transformers
@pytest.mark.parametrize(
    ("family", "head", "prefix"),
    [
        ("Bert", "ForMaskedLM", "bert."),
        ("Bert", "Model", ""),
        ("GPT2", "LMHeadModel", "transformer."),
        ("DistilBert", "ForMaskedLM", "distilbert."),
    ],
)
def test_the_prefix_of_the_encoder_or_decoder(family, head, prefix):
    model = made(family, head)
    assert base_prefix(model) == prefix
    assert all(name.startswith(prefix) for name in model.state_dict() if "layer.0." in name or ".h.0." in name)


def test_any_other_module_has_no_prefix():
    assert base_prefix(Tagger(2)) == ""


@needs_transformers
def test_the_configuration_above_a_list_is_that_of_the_closest_module():
    model = made("Bert")
    assert config_above(model, "bert.encoder.layer") is model.bert.encoder.config
    wrapped = nn.ModuleDict({"inner": model})
    assert config_above(wrapped, "inner.bert") is model.bert.config
    assert config_above(Tagger(2), "encoder.layers") is None


@needs_transformers
def test_only_classes_that_can_be_built_are_found(transformers):
    assert model_class("BertForMaskedLM") is transformers.BertForMaskedLM
    for name in ("AutoModel", "BertPreTrainedModel", "PreTrainedModel", "BertConfig", "pipeline", "models.bert", "", 3):
        assert model_class(name) is None, name


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^an architecture needs transformers: pip install 'kdzoo\[text\]'$"):
        model_class("BertModel")
