"""Shallow students that start from the layers of a deep teacher: which layers, their search, and their copy.

Works for transformers of the Hugging Face format and for any module whose layers the user names by a path.
"""

from kdzoo.layer_init.anatomy import layers_of
from kdzoo.layer_init.architecture import architecture_of, as_distilbert, build, shorter
from kdzoo.layer_init.choice import chosen_layers
from kdzoo.layer_init.copying import copy_layers
from kdzoo.layer_init.cutting import shortened
from kdzoo.layer_init.objectives import fidelity, loss, probe
from kdzoo.layer_init.search import Search, best_layers
from kdzoo.layer_init.search_plot import draw_search

__all__ = [
    "Search",
    "architecture_of",
    "as_distilbert",
    "best_layers",
    "build",
    "chosen_layers",
    "copy_layers",
    "draw_search",
    "fidelity",
    "layers_of",
    "loss",
    "probe",
    "shortened",
    "shorter",
]
