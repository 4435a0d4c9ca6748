"""Where in a model its list of layers is, and what its parts are called."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from kdzoo.errors import ConfigError

Blocks = nn.ModuleList | nn.Sequential


def find_layers(model: nn.Module, path: str | None = None) -> tuple[str, Blocks]:
    """Return the dotted path and the list of a model's layers.

    Args:
        model: Any module; without a path one with the configuration of a transformers model.
        path: Dotted path of a non-empty ModuleList or Sequential; None for the one whose length is the number of
            layers in the model's configuration and whose members are of one class.

    Raises:
        ConfigError: If the path names no such list, or without a path not exactly one list fits. The lists
            there are are named.

    Example:
        >>> from torch import nn
        >>> path, layers = find_layers(nn.ModuleDict({"blocks": nn.Sequential(nn.ReLU(), nn.ReLU())}), "blocks")
        >>> path, len(layers)
        ('blocks', 2)
    """
    lists = dict(_lists(model))
    if path is not None:
        if not lists.get(path):
            raise ConfigError(f"path must name a list of layers of {_name(model)}, got {path!r}; {_known(lists)}")
        return path, lists[path]
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    fitting = {
        name: blocks for name, blocks in lists.items() if len(blocks) == depth and len(set(map(type, blocks))) == 1
    }
    fitting = _outermost(fitting)
    if len(fitting) != 1:
        reason = "its configuration has no number of layers" if depth is None else f"{len(fitting)} lists have {depth}"
        raise ConfigError(f"path of the layers of {_name(model)} is needed, since {reason}; {_known(lists)}")
    return next(iter(fitting.items()))


def base_prefix(model: nn.Module) -> str:
    """Return what the names of a model's encoder or decoder begin with, `bert.` say; nothing if it is all there is."""
    prefix = getattr(model, "base_model_prefix", "")
    return f"{prefix}." if prefix and isinstance(getattr(model, prefix, None), nn.Module) else ""


def config_above(model: nn.Module, path: str) -> Any:
    """Return the configuration that a list of layers was built from: that of the closest module above it, or None."""
    steps = path.split(".")
    for length in range(len(steps), -1, -1):
        config = getattr(model.get_submodule(".".join(steps[:length])), "config", None)
        if config is not None:
            return config
    return None


def _lists(model: nn.Module) -> Iterator[tuple[str, Blocks]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            yield name, module


def _outermost(lists: dict[str, Blocks]) -> dict[str, Blocks]:
    """Leave out the lists inside of others: the experts of a layer, the modules of a block."""
    return {
        name: blocks
        for name, blocks in lists.items()
        if not any(other == "" or name.startswith(f"{other}.") for other in lists if other != name)
    }


def _known(lists: dict[str, Blocks]) -> str:
    known = ", ".join(f"{name!r} ({len(blocks)})" for name, blocks in _outermost(lists).items())
    return f"lists of modules, with their length: {known or 'none'}"


def _name(model: nn.Module) -> str:
    return type(model).__name__
