"""Initialisation of shallow students from the layers of a deep teacher: selecting, searching and copying layers.

Works for transformers of the library transformers, and for any module whose list of layers the user names by a path.
"""

from kdzoo.layer_init.architecture import (
    architecture_of,
    build_model,
    depth_of,
    distilbert_architecture,
    truncate_architecture,
)
from kdzoo.layer_init.copying import copy_layers
from kdzoo.layer_init.layer_lists import find_layers
from kdzoo.layer_init.objectives import fidelity_objective, loss_objective, probe_objective
from kdzoo.layer_init.search import LayerSearch, search_layers
from kdzoo.layer_init.search_plot import plot_layer_search
from kdzoo.layer_init.selection import select_layers
from kdzoo.layer_init.truncation import truncated_layers

__all__ = [
    "LayerSearch",
    "architecture_of",
    "build_model",
    "copy_layers",
    "depth_of",
    "distilbert_architecture",
    "fidelity_objective",
    "find_layers",
    "loss_objective",
    "plot_layer_search",
    "probe_objective",
    "search_layers",
    "select_layers",
    "truncate_architecture",
    "truncated_layers",
]
