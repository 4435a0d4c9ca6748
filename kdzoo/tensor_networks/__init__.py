"""Matrix product states: their contraction, canonical form, compression, construction and interpretation.

Words that are used throughout. A *matrix product state*, or tensor train, is a *chain* of tensors: a *core*
``[left, d, right]`` for every *site*, that is, for every number of the input, and one *output core*
``[left, outputs, right]`` that stands before the site ``out_site``. Neighbouring tensors are contracted over the
*bond* between them. The free index of a core is its *leg*; it is contracted with the d *features* phi of the site's
number. What has been contracted from one end up to a bond is the *state* there. Functions take a chain as the three
arguments ``sites`` (the cores), ``centre`` (the output core) and ``out_site``; :class:`ChainModule` holds one as
parameters.
"""

from kdzoo.tensor_networks.black_box import from_queries
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.contraction import contract
from kdzoo.tensor_networks.cross import cross_interpolate
from kdzoo.tensor_networks.entanglement import entropies, entropy
from kdzoo.tensor_networks.features import (
    FEATURE_MAPS,
    CosSin,
    FeatureMap,
    Legendre,
    Polynomial,
    Trainable,
    Whitened,
    make_feature_map,
)
from kdzoo.tensor_networks.growth import grow
from kdzoo.tensor_networks.layout import Layout, make_layout
from kdzoo.tensor_networks.measure import TensorTrain, inner_product, norm, squared_distance
from kdzoo.tensor_networks.network import as_nodes, canonical_form, reference_outputs, spectra
from kdzoo.tensor_networks.orders import mutual_information_order, site_order
from kdzoo.tensor_networks.polynomial import copy_layer, polynomial_layer, to_polynomial
from kdzoo.tensor_networks.queries import Oracle
from kdzoo.tensor_networks.relevance import conditional_effect, main_effect, saliency
from kdzoo.tensor_networks.sketching import sketch
from kdzoo.tensor_networks.sobol import Moments, Sobol, feature_moments, pairwise_indices, sobol_indices
from kdzoo.tensor_networks.truncation import balanced_truncation, state_moments, truncate

__all__ = [
    "FEATURE_MAPS",
    "ChainModule",
    "CosSin",
    "FeatureMap",
    "Layout",
    "Legendre",
    "Moments",
    "Oracle",
    "Polynomial",
    "Sobol",
    "TensorTrain",
    "Trainable",
    "Whitened",
    "as_nodes",
    "balanced_truncation",
    "canonical_form",
    "check_open_chain",
    "conditional_effect",
    "contract",
    "copy_layer",
    "cross_interpolate",
    "entropies",
    "entropy",
    "feature_moments",
    "from_queries",
    "grow",
    "inner_product",
    "main_effect",
    "make_feature_map",
    "make_layout",
    "mutual_information_order",
    "norm",
    "pairwise_indices",
    "polynomial_layer",
    "reference_outputs",
    "saliency",
    "site_order",
    "sketch",
    "sobol_indices",
    "spectra",
    "squared_distance",
    "state_moments",
    "to_polynomial",
    "truncate",
]
