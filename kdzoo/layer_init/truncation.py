"""A model that has only some of its layers for a while."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from kdzoo.layer_init.layer_lists import config_above, find_layers
from kdzoo.layer_init.selection import select_layers

PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta")
"""Lists in configurations of transformers that have one value for each layer."""


@contextmanager
def truncated_layers(model: nn.Module, chosen: Sequence[int], path: str | None = None) -> Iterator[None]:
    """Leave a model only the chosen layers; afterwards it is as it was, whatever happened.

    The number of layers and the lists by layer in the configuration above, and the `layer_idx` that layers of
    decoders know, fit the chosen layers meanwhile.

    Args:
        model: Any module that calls the members of its list of layers one after the other.
        chosen: Numbers of the layers that stay, strictly increasing.
        path: Dotted path of the list of layers; None where `find_layers` finds it.

    Raises:
        ConfigError: As of `find_layers` and `select_layers`.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.GELU())
        >>> with truncated_layers(model, [0, 2], path=""):
        ...     [type(layer).__name__ for layer in model]
        ['ReLU', 'GELU']
        >>> len(model)
        3
    """
    where, layers = find_layers(model, path)
    numbers = select_layers(chosen, len(layers))
    config = config_above(model, where)
    modules = dict(layers._modules)
    settings = dict(vars(config)) if getattr(config, "num_hidden_layers", None) == len(layers) else None
    kept = [layers[number] for number in numbers]
    indices = _indices(kept, numbers)
    try:
        _put(layers, {str(i): layer for i, layer in enumerate(kept)})
        for module, new, _ in indices:
            module.layer_idx = new
        if settings is not None:
            shorten_config(config, numbers)
        yield
    finally:
        _put(layers, modules)
        for module, _, old in indices:
            module.layer_idx = old
        if settings is not None:
            vars(config).clear()
            vars(config).update(settings)


def shorten_config(config: Any, chosen: Sequence[int]) -> None:
    """Make a configuration of transformers fit the chosen layers: their number, and lists with a value for each."""
    deep = config.num_hidden_layers
    for name in PER_LAYER:
        values = vars(config).get(name)
        if isinstance(values, list | tuple) and len(values) == deep:
            setattr(config, name, [values[number] for number in chosen])
    config.num_hidden_layers = len(chosen)


def _put(layers: nn.Module, modules: Mapping[str, nn.Module | None]) -> None:
    layers._modules.clear()  # in place: other references to the list, and its class, stay
    layers._modules.update(modules)


def _indices(layers: Sequence[nn.Module], numbers: Sequence[int]) -> list[tuple[Any, int, int]]:
    """Return the modules that know the number of their layer, with the new and the old number."""
    pairs = enumerate(zip(layers, numbers, strict=True))
    return [
        (module, new, old)
        for new, (layer, old) in pairs
        for module in layer.modules()
        if getattr(module, "layer_idx", None) == old
    ]
