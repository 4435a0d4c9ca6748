"""Matrix product states: their contraction, canonical form, compression, construction and what is in them.

A chain is a list of tensors `sites`, each (left bond, d, right bond), and one tensor `centre` (left bond, outputs,
right bond) that stands before the site `out_site`; `kdzoo.models.MPS` holds one as parameters.
"""

from kdzoo.tensor_networks.black_box import from_queries
from kdzoo.tensor_networks.contraction import contract
from kdzoo.tensor_networks.features import (
    MAPS,
    CosSin,
    FeatureMap,
    Legendre,
    Polynomial,
    Trainable,
    Whitened,
    feature_map,
)
from kdzoo.tensor_networks.layout import Layout, layout
from kdzoo.tensor_networks.orders import by_mutual_information, site_order

__all__ = [
    "MAPS",
    "CosSin",
    "FeatureMap",
    "Layout",
    "Legendre",
    "Polynomial",
    "Trainable",
    "Whitened",
    "by_mutual_information",
    "contract",
    "feature_map",
    "from_queries",
    "layout",
    "site_order",
]
