"""Finding the list of layers in a model."""

from collections.abc import Iterator

from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init.hugging_face import attribute, number_of_layers

LayerList = nn.ModuleList | nn.Sequential


def find_layers(model: nn.Module, path: str | None = None) -> tuple[str, LayerList]:
    """Return the dotted path and the list of a model's layers.

    Args:
        model: Any module; without a path one with the configuration of a transformers model.
        path: Dotted path of a non-empty ModuleList or Sequential; None finds the one whose length is the number of
            layers in the model's configuration and whose members are of one class.

    Raises:
        ConfigError: The path does not name such a list, or without a path not exactly one list fits. The message names
            the lists of the model.

    Example:
        >>> from torch import nn
        >>> path, layers = find_layers(nn.ModuleDict({"blocks": nn.Sequential(nn.ReLU(), nn.ReLU())}), "blocks")
        >>> path, len(layers)
        ('blocks', 2)
    """
    lists = dict(_lists(model))
    name = type(model).__name__
    if path is not None:
        if not lists.get(path):
            raise ConfigError(f"path must name a list of layers of {name}, got {path!r}; {_listing(lists)}")
        return path, lists[path]
    depth = number_of_layers(attribute(model, "config"))
    # A head is often a Sequential of as many modules as there are layers, but of different classes.
    candidates = _outermost(
        {path: layers for path, layers in lists.items() if len(layers) == depth and len(set(map(type, layers))) == 1}
    )
    if len(candidates) != 1:
        reason = "its configuration has no number of layers"
        if depth is not None:
            reason = f"{len(candidates)} lists have {depth}"
        raise ConfigError(f"path of the layers of {name} is needed, since {reason}; {_listing(lists)}")
    return next(iter(candidates.items()))


def _lists(model: nn.Module) -> Iterator[tuple[str, LayerList]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            yield name, module


def _outermost(lists: dict[str, LayerList]) -> dict[str, LayerList]:
    """Leave out the lists inside of other lists: the experts of a layer, the modules of a block."""
    return {
        name: layers
        for name, layers in lists.items()
        if not any(other == "" or name.startswith(f"{other}.") for other in lists if other != name)
    }


def _listing(lists: dict[str, LayerList]) -> str:
    """Return the part of an error message that names the lists of a model."""
    known = ", ".join(f"{name!r} ({len(layers)})" for name, layers in _outermost(lists).items())
    return f"lists of modules, with their length: {known or 'none'}"
