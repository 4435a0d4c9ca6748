"""Architectures as plain values: read from a model, built, saved, shortened, converted, refused."""

import json

import pytest
import torch

from kdzoo.errors import ConfigError
from tests.layer_init.cases import BERT_LIKE, CONFIGS, architecture, made, outputs_of, randomised, texts

pytest.importorskip("transformers")
from kdzoo.layer_init import (
    architecture_of,
    build_model,
    copy_layers,
    depth_of,
    distilbert_architecture,
    find_layers,
    truncate_architecture,
)

BERT = {"model_class": "BertForMaskedLM", "config": {**BERT_LIKE, "num_hidden_layers": 4}}


@pytest.mark.parametrize("family", CONFIGS)
def test_an_architecture_is_plain_and_builds_the_same_again(family):
    first = build_model(architecture(family))
    written = architecture_of(first)
    assert json.loads(json.dumps(written)) == written
    second = build_model(written)
    assert architecture_of(second) == written
    assert {name: value.shape for name, value in first.state_dict().items()} == {
        name: value.shape for name, value in second.state_dict().items()
    }
    assert second.training
    assert all(module.training for module in second.modules())


def test_an_encoder_without_pooler_stays_without():
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel(transformers.BertConfig(**BERT["config"]), add_pooling_layer=False)
    written = architecture_of(model)
    assert written["add_pooling_layer"] is False
    assert build_model(written).pooler is None
    assert build_model(truncate_architecture(written, [0, 3])).pooler is None
    assert "add_pooling_layer" not in architecture_of(build_model({**BERT, "model_class": "BertModel"}))


def test_runtime_settings_are_left_out():
    trap = {"_attn_implementation": "someone/kernel", "auto_map": {"AutoModel": "x.Y"}, "dtype": "bfloat16"}
    inside = {"id2label": {"0": "_dtype", "1": "dtype"}, "label2id": {"_dtype": 0, "dtype": 1}}
    model = build_model(
        {"model_class": "BertForSequenceClassification", "config": {**BERT["config"], **trap, **inside}}
    )
    written = architecture_of(model)["config"]
    assert not set(written) & {*trap, "_name_or_path", "transformers_version"}
    assert written["id2label"] == inside["id2label"]
    assert written["label2id"] == inside["label2id"]
    assert model.dtype == torch.float32


@pytest.mark.parametrize("family", CONFIGS)
def test_a_shorter_architecture_can_be_saved_and_loaded(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    chosen = (0, 2, 3)
    model = randomised(build_model(truncate_architecture(architecture(family), chosen)), seed=1)
    assert len(find_layers(model)[1]) == 3
    model.save_pretrained(tmp_path)
    loaded = getattr(transformers, type(model).__name__).from_pretrained(tmp_path, local_files_only=True)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(outputs_of(loaded, texts()).logits, outputs_of(model, texts()).logits, rtol=0, atol=0)
    assert architecture_of(loaded) == architecture_of(model)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_depth_is_found_by_whatever_name(family):
    assert depth_of(architecture(family)) == 4


def test_lists_with_a_value_for_each_layer_are_shortened():
    config = architecture_of(build_model(architecture("Qwen2")))["config"]
    assert config["layer_types"] == ["full_attention"] * 2 + ["sliding_attention"] * 2
    cut = truncate_architecture(architecture("Qwen2"), [0, 1, 3])["config"]
    assert cut["layer_types"] == ["full_attention"] * 2 + ["sliding_attention"]
    two = truncate_architecture(architecture("DebertaV2", num_hidden_layers=2), [1])["config"]
    assert two["pos_att_type"] == ["p2c", "c2p"]  # as many as layers, but not one for each


@pytest.mark.parametrize(
    ("bert", "distilbert"),
    [
        ("BertModel", "DistilBertModel"),
        ("BertForMaskedLM", "DistilBertForMaskedLM"),
        ("BertForSequenceClassification", "DistilBertForSequenceClassification"),
    ],
)
def test_a_distilbert_has_the_sizes_of_its_bert(bert, distilbert):
    changes = {
        **{"num_labels": 3, "hidden_act": "relu", "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3},
        **{"classifier_dropout": 0.4, "pad_token_id": 7, "initializer_range": 0.05},
    }
    result = distilbert_architecture({"model_class": bert, "config": {**BERT["config"], **changes}}, 2)
    config = build_model(result).config
    assert result["model_class"] == distilbert
    assert (config.n_layers, config.dim, config.n_heads, config.hidden_dim) == (2, 16, 2, 24)
    assert (config.activation, config.dropout, config.attention_dropout) == ("relu", 0.2, 0.3)
    assert (config.seq_classif_dropout, config.num_labels, config.pad_token_id) == (0.4, 3, 7)
    assert (config.vocab_size, config.max_position_embeddings, config.initializer_range) == (50, 20, 0.05)
    assert config.tie_word_embeddings is True
    assert distilbert_architecture(BERT, 1)["config"]["seq_classif_dropout"] == 0.1


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            {**BERT, "weights": 1},
            "architecture must have the keys model_class, config, add_pooling_layer, got 'weights'",
        ),
        ({**BERT, "add_pooling_layer": True}, "add_pooling_layer must be false or absent, got True"),
        (
            {**BERT, "model_class": "AutoModel"},
            "model_class must be the name of a model of transformers, got 'AutoModel'",
        ),
        ({**BERT, "model_class": "BertPreTrainedModel"}, "model_class must be .*, got 'BertPreTrainedModel'"),
        ({**BERT, "model_class": "BertConfig"}, "model_class must be .*, got 'BertConfig'"),
        ({**BERT, "model_class": "models.bert"}, r"model_class must be .*, got 'models\.bert'"),
        ({**BERT, "model_class": "pipeline"}, "model_class must be .*, got 'pipeline'"),
        ({"config": {}}, "model_class must be .*, got None"),
        ({"model_class": "BertModel"}, "config of BertModel must be a mapping, got None"),
        ({**BERT, "config": {"hidden_size": "16"}}, "config does not fit BertForMaskedLM: .*hidden_size.*"),
        ({**BERT, "config": {"hidden_size": 15}}, r"config does not fit BertForMaskedLM: .*15.*"),
    ],
    ids=[
        *("unknown-key", "pooling", "auto-class", "abstract", "not-a-model", "dotted", "function", "no-class"),
        *("no-config", "wrong-type", "no-multiple"),
    ],
)
def test_invalid_architectures_are_refused(wrong, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        build_model(wrong)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps must be 1e-12 for a DistilBERT of the same layers, got 1e-05"),
        ({"is_decoder": True}, "is_decoder must be False for a DistilBERT of the same layers, got True"),
        ({"add_cross_attention": True, "is_decoder": False}, "add_cross_attention must be False .*, got True"),
    ],
    ids=["epsilon", "decoder", "cross-attention"],
)
def test_a_bert_that_no_distilbert_can_equal_is_refused(change, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        distilbert_architecture({**BERT, "config": {**BERT["config"], **change}}, 2)


def test_other_models_and_depths_are_refused():
    with pytest.raises(ConfigError, match=r"^model_class must be one of BertModel, .*, got 'RobertaForMaskedLM'$"):
        distilbert_architecture(architecture("Roberta"), 2)
    with pytest.raises(ConfigError, match=r"^depth must be an integer in 1\.\.4, got 5$"):
        distilbert_architecture(BERT, 5)
    with pytest.raises(ConfigError, match=r"^layers\[1\] must be an integer in 0\.\.3, got 4$"):
        truncate_architecture(BERT, [0, 4])
    with pytest.raises(ConfigError, match=r"^config of CLIPModel has no number of layers$"):
        truncate_architecture({"model_class": "CLIPModel", "config": {}}, [0])
    with pytest.raises(ConfigError, match=r"^model must be of a class of transformers, got torch\..*\.Linear$"):
        architecture_of(torch.nn.Linear(1, 1))


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^an architecture needs transformers: pip install 'kdzoo\[text\]'$"):
        build_model(BERT)


def test_a_student_of_a_built_architecture_takes_its_layers():
    teacher = made("Bert")
    student = build_model(truncate_architecture(architecture_of(teacher), [1, 2]))
    assert copy_layers(student, teacher, [1, 2]) == ()
