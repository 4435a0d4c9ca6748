"""Access to the library transformers and to its objects, whose attributes differ from class to class.

This is the only module of the package that looks up attributes by name. Everything else asks these functions, so that
what the project expects of transformers is listed in one place. The optional extra ``kdzoo[text]`` is not imported
until a function needs it.
"""

import inspect
from importlib import import_module
from typing import Any

from torch import nn

from kdzoo.errors import ConfigError


def attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a model, output or configuration of transformers; None where its class has none.

    A protocol cannot replace this: configurations translate names when an attribute is read (DistilBERT answers
    ``num_hidden_layers`` with its ``n_layers``), and whether, say, an output has ``past_key_values`` is decided by the
    architecture.

    Example:
        >>> attribute(nn.Linear(1, 1), "config") is None
        True
    """
    return getattr(owner, name, None)


def number_of_layers(config: Any) -> int | None:
    """Return how many layers a configuration describes, whatever it calls them; None if it does not say."""
    depth = attribute(config, "num_hidden_layers")
    return depth if isinstance(depth, int) else None


def base_prefix(model: nn.Module) -> str:
    """Return the prefix of the names in a model's encoder or decoder, such as ``bert.``; empty without a head."""
    prefix = attribute(model, "base_model_prefix")
    return f"{prefix}." if prefix and isinstance(attribute(model, prefix), nn.Module) else ""


def config_above(model: nn.Module, path: str) -> Any:
    """Return the configuration that the module ``path`` was built from: that of the closest module above it.

    Returns:
        None if no module above it has a configuration.
    """
    steps = path.split(".")
    for length in range(len(steps), -1, -1):
        config = attribute(model.get_submodule(".".join(steps[:length])), "config")
        if config is not None:
            return config
    return None


def model_class(name: Any) -> Any:
    """Return the class of transformers with exactly this name; None if there is none that can be built.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ConfigError("an architecture needs transformers: pip install 'kdzoo[text]'") from error
    # The name may come from a file: only a plain identifier is looked up, and only a model class is returned.
    cls = attribute(transformers, name) if isinstance(name, str) and name.isidentifier() else None
    is_model = inspect.isclass(cls) and issubclass(cls, transformers.PreTrainedModel)
    # The abstract bases BertPreTrainedModel, ... are subclasses too; PreTrainedModel itself has no config_class.
    return cls if is_model and not str(name).endswith("PreTrainedModel") and attribute(cls, "config_class") else None
