"""Running a model with only some of its layers, and shortening its configuration."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from kdzoo.layer_init.hugging_face import attribute, config_above, number_of_layers
from kdzoo.layer_init.layer_lists import find_layers
from kdzoo.layer_init.selection import select_layers

# Settings of transformers that hold a list with one value per layer: the kind of attention of each layer and of its
# feed-forward network (dense or a mixture of experts), the blocks of hybrid models, and rotary positions.
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta")


@contextmanager
def truncated_layers(model: nn.Module, indices: Sequence[int], path: str | None = None) -> Iterator[None]:
    """Leave a model only the selected layers inside of a ``with`` block, and restore it even after an error.

    Meanwhile the number of layers and the per-layer lists in the configuration and the ``layer_idx`` of decoder layers
    fit the selected layers. No weight is copied, so a search can score many selections of a large teacher.

    Args:
        model: Any module that calls the members of its list of layers one after the other.
        indices: Indices of the layers that stay, strictly increasing.
        path: Dotted path of the list of layers; None where ``find_layers`` finds it.

    Raises:
        ConfigError: See ``find_layers`` and ``select_layers``.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.GELU())
        >>> with truncated_layers(model, [0, 2], path=""):
        ...     [type(layer).__name__ for layer in model]
        ['ReLU', 'GELU']
        >>> len(model)
        3
    """
    layers_path, layers = find_layers(model, path)
    selected_indices = select_layers(indices, len(layers))
    config = config_above(model, layers_path)
    # A configuration that describes another number of layers belongs to another part of the model.
    saved_settings = dict(vars(config)) if number_of_layers(config) == len(layers) else None
    saved_modules = dict(layers._modules)
    selected = [layers[index] for index in selected_indices]
    renumbered = _modules_with_layer_idx(selected, selected_indices)
    try:
        _replace_modules(layers, {str(i): layer for i, layer in enumerate(selected)})
        for module, new_index, _ in renumbered:
            module.layer_idx = new_index
        if saved_settings is not None:
            shorten_config(config, selected_indices)
        yield
    finally:
        _replace_modules(layers, saved_modules)
        for module, _, old_index in renumbered:
            module.layer_idx = old_index
        if saved_settings is not None:
            vars(config).clear()
            vars(config).update(saved_settings)


def shorten_config(config: Any, indices: Sequence[int]) -> None:
    """Adapt a configuration of transformers, in place, to the selected layers: their number and all per-layer lists."""
    depth = config.num_hidden_layers
    for name in PER_LAYER:
        values = vars(config).get(name)
        # A setting of this name need not be per layer in every architecture.
        if isinstance(values, list | tuple) and len(values) == depth:
            setattr(config, name, [values[index] for index in indices])
    config.num_hidden_layers = len(indices)


def _replace_modules(layers: nn.Module, modules: Mapping[str, nn.Module | None]) -> None:
    """Replace the members of a list of modules in place: other references to the list stay valid, and so its class."""
    layers._modules.clear()
    layers._modules.update(modules)


def _modules_with_layer_idx(layers: Sequence[nn.Module], indices: Sequence[int]) -> list[tuple[Any, int, int]]:
    """Return the modules that know the index of their layer, with their new and old index.

    The key-value cache of a decoder has one entry per ``layer_idx``; with a gap in the indices it would fail.
    """
    return [
        (module, new_index, old_index)
        for new_index, (layer, old_index) in enumerate(zip(layers, indices, strict=True))
        for module in layer.modules()
        if attribute(module, "layer_idx") == old_index
    ]
