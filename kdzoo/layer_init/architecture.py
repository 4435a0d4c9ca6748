"""Architectures of transformers as plain values: written down, built with random weights, shortened, converted.

An architecture is a mapping that JSON can hold: `model_class`, the exact name of a class of the library transformers;
`config`, its configuration; and `add_pooling_layer: false` for an encoder that was built without its pooler. It says
nothing of weights, of where they came from, or of how attention is computed.

Needs the optional extra `kdzoo[text]`; nothing is imported from it until one of these functions is called.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.layer_init.selection import select_layers
from kdzoo.layer_init.truncation import shorten_config

KEYS = ("model_class", "config", "add_pooling_layer")
NOT_ARCHITECTURE = (
    *("transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "name_or_path"),
    *("attn_implementation", "experts_implementation", "quantization_config"),
)
"""Keys of configurations about files, number formats and kernels, some of which can name code to be fetched."""
DISTILBERT = {
    "BertModel": "DistilBertModel",
    "BertForMaskedLM": "DistilBertForMaskedLM",
    "BertForSequenceClassification": "DistilBertForSequenceClassification",
}
SAME = (
    *("vocab_size", "max_position_embeddings", "pad_token_id", "initializer_range", "chunk_size_feed_forward"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "problem_type", "id2label", "label2id"),
)
"""Settings that BERT and DistilBERT call alike."""


def architecture_of(model: Any) -> dict[str, Any]:
    """Return the architecture of a transformers model.

    Raises:
        ConfigError: If the model is of no class of the library transformers.

    Example:
        >>> architecture_of(BertForMaskedLM(BertConfig(num_hidden_layers=2)))["model_class"]  # doctest: +SKIP
        'BertForMaskedLM'
    """
    name = type(model).__name__
    if _model_class(name) is not type(model):
        raise ConfigError(f"model must be of a class of transformers, got {type(model).__module__}.{name}")
    return _architecture(model, _plain(model.config))


def build_model(architecture: Mapping[str, Any]) -> Any:
    """Return a model of an architecture, with random weights and in train mode.

    Args:
        architecture: As this module says. Keys that name files, number formats or kernels are ignored.

    Raises:
        ConfigError: If the extra is not installed, a key is unknown, the class is not one of transformers, or it
            refuses the configuration.

    Example:
        >>> model = build_model({"model_class": "BertModel", "config": {"num_hidden_layers": 2}})  # doctest: +SKIP
    """
    model_class, config = _resolved(architecture)
    pooling = {} if "add_pooling_layer" not in architecture else {"add_pooling_layer": False}
    try:
        return model_class(config, **pooling).train()
    except Exception as error:  # the classes of transformers share no base error
        raise _refused(architecture, error) from error


def truncate_architecture(architecture: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the architecture with only the chosen layers.

    Args:
        architecture: Its configuration must have a number of layers, whatever it is called there.
        chosen: Numbers of the layers that stay, strictly increasing, counted from 0.

    Raises:
        ConfigError: As of `build_model` and `select_layers`, or if there is no number of layers.

    Example:
        >>> bert = {"model_class": "BertModel", "config": {}}
        >>> truncate_architecture(bert, [0, 5, 11])["config"]["num_hidden_layers"]  # doctest: +SKIP
        3
    """
    _, config = _resolved(architecture)
    shorten_config(config, select_layers(chosen, _depth(architecture, config)))
    return {**architecture, "config": _plain(config)}


def distilbert_architecture(architecture: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return the DistilBERT of `depth` layers for a BERT: the same sizes and task, no token types, no pooler.

    A BERT that classifies has a pooler with tanh, a DistilBERT a `pre_classifier` with ReLU, so these heads have the
    same sizes but no weights in common; a masked-language head has the same layers in both.

    Args:
        architecture: Of the class BertModel, BertForMaskedLM or BertForSequenceClassification.
        depth: Number of layers, in 1..that of the BERT.

    Raises:
        ConfigError: If it is no such BERT, or one that a DistilBERT cannot equal: a decoder, or one with another
            `layer_norm_eps` than 1e-12.

    Source:
        Sanh et al. 2019, "DistilBERT", section 3.
    """
    model_class, bert = _resolved(architecture)
    wanted = validation.choice("model_class", model_class.__name__, tuple(DISTILBERT))
    for name, value in (("is_decoder", False), ("add_cross_attention", False), ("layer_norm_eps", 1e-12)):
        if getattr(bert, name) != value:
            raise ConfigError(f"{name} must be {value} for a DistilBERT of the same layers, got {getattr(bert, name)}")
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
        **{name: plain[name] for name in SAME if name in plain},
    }
    distilbert = {"model_class": DISTILBERT[wanted], "config": config}
    return {**distilbert, "config": _plain(_resolved(distilbert)[1])}


def _resolved(architecture: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the class and a new configuration object."""
    if unknown := sorted(set(architecture) - set(KEYS)):
        raise ConfigError(f"architecture must have the keys {', '.join(KEYS)}, got {unknown[0]!r}")
    if architecture.get("add_pooling_layer", False) is not False:
        raise ConfigError(f"add_pooling_layer must be false or absent, got {architecture['add_pooling_layer']!r}")
    name, config = architecture.get("model_class"), architecture.get("config")
    model_class = _model_class(name)
    if model_class is None:
        raise ConfigError(f"model_class must be the name of a model of transformers, got {name!r}")
    if not isinstance(config, Mapping):
        raise ConfigError(f"config of {name} must be a mapping, got {config!r}")
    try:
        return model_class, model_class.config_class.from_dict(_architectural(config))
    except Exception as error:  # strict dataclasses and the checks behind them share no base error
        raise _refused(architecture, error) from error


def _model_class(name: Any) -> Any:
    """Return the class of transformers with exactly this name; None if there is none that can be built."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ConfigError("an architecture needs transformers: pip install 'kdzoo[text]'") from error
    found: Any = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    is_model = inspect.isclass(found) and issubclass(found, transformers.PreTrainedModel)
    return found if is_model and not str(name).endswith("PreTrainedModel") and found.config_class else None


def _architecture(model: Any, config: dict[str, Any]) -> dict[str, Any]:
    poolable = "add_pooling_layer" in inspect.signature(type(model)).parameters
    without_pooler = poolable and getattr(model, "pooler", None) is None
    return {
        "model_class": type(model).__name__,
        "config": config,
        **({"add_pooling_layer": False} if without_pooler else {}),
    }


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON would give it back."""
    plain: dict[str, Any] = json.loads(json.dumps(_architectural(config.to_dict())))
    return plain


def _architectural(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is no architecture, also in configurations inside of this one."""
    return {
        key: _architectural(value) if isinstance(value, Mapping) and "model_type" in value else value
        for key, value in config.items()
        if not key.startswith("_") and key not in NOT_ARCHITECTURE
    }


def _depth(architecture: Mapping[str, Any], config: Any) -> int:
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int):
        raise ConfigError(f"config of {architecture['model_class']} has no number of layers")
    return depth


def _refused(architecture: Mapping[str, Any], error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:200]
    return ConfigError(f"config does not fit {architecture['model_class']}: {reason}")
