"""Matrix product states: their contraction, canonical form, compression, construction and what is in them.

A chain is a list of tensors `sites`, each (left bond, d, right bond), and one tensor `centre` (left bond, outputs,
right bond) that stands before the site `out_site`; `kdzoo.models.MPS` holds one as parameters.
"""

from kdzoo.tensor_networks.black_box import from_queries
from kdzoo.tensor_networks.contraction import contract
from kdzoo.tensor_networks.cross import cross
from kdzoo.tensor_networks.entanglement import entropies, entropy
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
from kdzoo.tensor_networks.growth import grow
from kdzoo.tensor_networks.layout import Layout, layout
from kdzoo.tensor_networks.measure import Train, distance, inner, norm
from kdzoo.tensor_networks.network import canonical, nodes, reference, spectra
from kdzoo.tensor_networks.orders import by_mutual_information, site_order
from kdzoo.tensor_networks.polynomial import copying_layer, polynomial_layer, to_polynomial
from kdzoo.tensor_networks.queries import Oracle
from kdzoo.tensor_networks.relevance import alone, given_rest, saliency
from kdzoo.tensor_networks.sketching import sketch
from kdzoo.tensor_networks.sobol import Moments, Sobol, feature_moments, pairwise_indices, sobol_indices
from kdzoo.tensor_networks.truncation import balanced, moments, truncate

__all__ = [
    "MAPS",
    "CosSin",
    "FeatureMap",
    "Layout",
    "Legendre",
    "Moments",
    "Oracle",
    "Polynomial",
    "Sobol",
    "Train",
    "Trainable",
    "Whitened",
    "alone",
    "balanced",
    "by_mutual_information",
    "canonical",
    "contract",
    "copying_layer",
    "cross",
    "distance",
    "entropies",
    "entropy",
    "feature_map",
    "feature_moments",
    "from_queries",
    "given_rest",
    "grow",
    "inner",
    "layout",
    "moments",
    "nodes",
    "norm",
    "pairwise_indices",
    "polynomial_layer",
    "reference",
    "saliency",
    "site_order",
    "sketch",
    "sobol_indices",
    "spectra",
    "to_polynomial",
    "truncate",
]
