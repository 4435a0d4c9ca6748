"""Shallow students that start from the layers of a deep teacher: which layers, their search, and their copy.

Works for transformers of the Hugging Face format and for any module whose layers the user names by a path.
"""

from kdzoo.layer_init.architecture import architecture_of, build_model, distilbert_architecture, truncate_architecture
from kdzoo.layer_init.copying import copy_layers
from kdzoo.layer_init.layer_lists import find_layers
from kdzoo.layer_init.objectives import fidelity, loss, probe
from kdzoo.layer_init.search import LayerSearch, search_layers
from kdzoo.layer_init.search_plot import plot_layer_search
from kdzoo.layer_init.selection import select_layers
from kdzoo.layer_init.truncation import truncated_layers

__all__ = [
    "LayerSearch",
    "architecture_of",
    "distilbert_architecture",
    "search_layers",
    "build_model",
    "select_layers",
    "copy_layers",
    "plot_layer_search",
    "fidelity",
    "find_layers",
    "loss",
    "probe",
    "truncated_layers",
    "truncate_architecture",
]
