"""Architectures of transformers as plain values: reading them from a model, building, shortening, converting them.

An architecture is a mapping that JSON can hold: ``model_class``, the exact name of a class of the library transformers;
``config``, its configuration; and ``add_pooling_layer: false`` for an encoder that was built without its pooler. It
says nothing about weights, their origin, or how attention is computed.

Needs the optional extra ``kdzoo[text]``, which is not imported until one of these functions is called.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdzoo.core import validation
from kdzoo.errors import ConfigError, in_one_line
from kdzoo.layer_init.hugging_face import attribute, model_class, number_of_layers
from kdzoo.layer_init.selection import select_layers
from kdzoo.layer_init.truncation import shorten_config

KEYS = ("model_class", "config", "add_pooling_layer")
# Settings about files, number formats and kernels. They are not part of an architecture, and some can name code that
# transformers would fetch (``auto_map``, a kernel as ``attn_implementation``), which a file must not be able to do.
NOT_ARCHITECTURE = (
    *("transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "name_or_path"),
    *("attn_implementation", "experts_implementation", "quantization_config"),
)
DISTILBERT_CLASSES = {
    "BertModel": "DistilBertModel",
    "BertForMaskedLM": "DistilBertForMaskedLM",
    "BertForSequenceClassification": "DistilBertForSequenceClassification",
}
# Settings that have the same name and meaning in BERT and DistilBERT.
SHARED_SETTINGS = (
    *("vocab_size", "max_position_embeddings", "pad_token_id", "initializer_range", "chunk_size_feed_forward"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "problem_type", "id2label", "label2id"),
)
# What the code of DistilBERT has fixed: an encoder whose layer norms have this epsilon. A BERT with another value would
# not give the same outputs with the same weights.
DISTILBERT_FIXED = {"is_decoder": False, "add_cross_attention": False, "layer_norm_eps": 1e-12}


def architecture_of(model: Any) -> dict[str, Any]:
    """Return the architecture of a transformers model.

    Raises:
        ConfigError: The model's class is not one of transformers.

    Example:
        >>> architecture_of(BertForMaskedLM(BertConfig(num_hidden_layers=2)))["model_class"]  # doctest: +SKIP
        'BertForMaskedLM'
    """
    name = type(model).__name__
    if model_class(name) is not type(model):
        raise ConfigError(f"model must be of a class of transformers, got {type(model).__module__}.{name}")
    architecture: dict[str, Any] = {"model_class": name, "config": _plain(model.config)}
    # The configuration does not tell whether a pooler was built, and its weights would be missing or left over.
    can_have_pooler = "add_pooling_layer" in inspect.signature(type(model)).parameters
    if can_have_pooler and attribute(model, "pooler") is None:
        architecture["add_pooling_layer"] = False
    return architecture


def build_model(architecture: Mapping[str, Any]) -> Any:
    """Return a model of an architecture with random weights, in train mode.

    Args:
        architecture: See the docstring of this module. Settings about files, number formats or kernels are ignored.

    Raises:
        ConfigError: The extra is not installed, a key is unknown, the class is not one of transformers, or it rejects
            the configuration.

    Example:
        >>> model = build_model({"model_class": "BertModel", "config": {"num_hidden_layers": 2}})  # doctest: +SKIP
    """
    cls, config = _resolved(architecture)
    pooling = {} if "add_pooling_layer" not in architecture else {"add_pooling_layer": False}
    try:
        return cls(config, **pooling).train()
    except Exception as error:  # the classes of transformers have no common base error
        raise _architecture_error(architecture, error) from error


def depth_of(architecture: Mapping[str, Any]) -> int:
    """Return the number of layers of an architecture.

    Raises:
        ConfigError: See ``build_model``; or there is no number of layers.
    """
    return _depth(architecture, _resolved(architecture)[1])


def truncate_architecture(architecture: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Return the architecture with only the selected layers.

    Args:
        architecture: Its configuration must have a number of layers, by whatever name.
        layers: Indices of the layers that stay, strictly increasing, counted from 0.

    Raises:
        ConfigError: See ``build_model`` and ``select_layers``; or there is no number of layers.

    Example:
        >>> bert = {"model_class": "BertModel", "config": {}}
        >>> truncate_architecture(bert, [0, 5, 11])["config"]["num_hidden_layers"]  # doctest: +SKIP
        3
    """
    _, config = _resolved(architecture)
    shorten_config(config, select_layers(layers, _depth(architecture, config)))
    return {**architecture, "config": _plain(config)}


def distilbert_architecture(architecture: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return the DistilBERT of ``depth`` layers for a BERT: the same sizes and task, without token types and pooler.

    The masked-language head has the same layers in both. A BERT that classifies has a pooler with tanh where a
    DistilBERT has a ``pre_classifier`` with ReLU: the sizes are the same, but weights cannot be copied.

    Args:
        architecture: Of the class BertModel, BertForMaskedLM or BertForSequenceClassification.
        depth: Number of layers, in 1..that of the BERT.

    Raises:
        ConfigError: It is not such a BERT, or one that a DistilBERT cannot equal: a decoder, or one with another
            ``layer_norm_eps`` than 1e-12.

    References:
        Sanh et al.: DistilBERT, a distilled version of BERT. arXiv:1910.01108, section 3.
    """
    cls, bert = _resolved(architecture)
    name = validation.choice("model_class", cls.__name__, tuple(DISTILBERT_CLASSES))
    for setting, required in DISTILBERT_FIXED.items():
        if (value := attribute(bert, setting)) != required:
            raise ConfigError(f"{setting} must be {required} for a DistilBERT of the same layers, got {value}")
    plain = _plain(bert)
    config = {
        "model_type": "distilbert",
        "n_layers": validation.integer("depth", depth, 1, _depth(architecture, bert)),
        "dim": bert.hidden_size,
        "n_heads": bert.num_attention_heads,
        "hidden_dim": bert.intermediate_size,
        "activation": bert.hidden_act,
        "dropout": bert.hidden_dropout_prob,
        "attention_dropout": bert.attention_probs_dropout_prob,
        "seq_classif_dropout": bert.hidden_dropout_prob if bert.classifier_dropout is None else bert.classifier_dropout,
        **{name: plain[name] for name in SHARED_SETTINGS if name in plain},
    }
    distilbert = {"model_class": DISTILBERT_CLASSES[name], "config": config}
    # Resolved once, so that DistilBERT's defaults are written out too: the result equals what is read from a model.
    return {**distilbert, "config": _plain(_resolved(distilbert)[1])}


def _resolved(architecture: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the class and a new configuration object."""
    if unknown := sorted(set(architecture) - set(KEYS)):
        raise ConfigError(f"architecture must have the keys {', '.join(KEYS)}, got {unknown[0]!r}")
    if architecture.get("add_pooling_layer", False) is not False:
        raise ConfigError(f"add_pooling_layer must be false or absent, got {architecture['add_pooling_layer']!r}")
    name, config = architecture.get("model_class"), architecture.get("config")
    cls = model_class(name)
    if cls is None:
        raise ConfigError(f"model_class must be the name of a model of transformers, got {name!r}")
    if not isinstance(config, Mapping):
        raise ConfigError(f"config of {name} must be a mapping, got {config!r}")
    try:
        return cls, cls.config_class.from_dict(_without_runtime_settings(config))
    except Exception as error:  # strict dataclasses and the checks behind them have no common base error
        raise _architecture_error(architecture, error) from error


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as it is after a round trip through JSON, with strings as keys and lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(_without_runtime_settings(config.to_dict())))
    return plain


def _without_runtime_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not part of an architecture, also in configurations inside of this one."""
    # Only a mapping with a model_type is a configuration; in others, such as id2label, a key may have any name.
    return {
        key: _without_runtime_settings(value) if isinstance(value, Mapping) and "model_type" in value else value
        for key, value in config.items()
        if not key.startswith("_") and key not in NOT_ARCHITECTURE
    }


def _depth(architecture: Mapping[str, Any], config: Any) -> int:
    depth = number_of_layers(config)
    if depth is None:
        raise ConfigError(f"config of {architecture['model_class']} has no number of layers")
    return depth


def _architecture_error(architecture: Mapping[str, Any], error: Exception) -> ConfigError:
    reason = in_one_line(error)
    return ConfigError(f"config does not fit {architecture['model_class']}: {reason}")
