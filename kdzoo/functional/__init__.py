"""Pure functions on tensors: the losses and algorithms from which distillers are wired."""

from kdzoo.functional.decoupled import decoupled_kl
from kdzoo.functional.encoders import attention_kl, cosine_distance, mean_by_text
from kdzoo.functional.fgw.barycenter import Barycenter, BarycenterSettings, fgw_barycenter
from kdzoo.functional.fgw.graph import Edges
from kdzoo.functional.hard_targets import hard_target_ce
from kdzoo.functional.hidden_features import attention_map, attention_transfer, hint_mse
from kdzoo.functional.relations import angle_relation, distance_relation
from kdzoo.functional.soft_targets import centred_mse, soft_target_kl
from kdzoo.functional.subspaces import principal_angles
from kdzoo.functional.top_k import most_likely, top_k_kl

__all__ = [
    "Barycenter",
    "BarycenterSettings",
    "Edges",
    "angle_relation",
    "attention_kl",
    "attention_map",
    "attention_transfer",
    "centred_mse",
    "cosine_distance",
    "decoupled_kl",
    "distance_relation",
    "fgw_barycenter",
    "hard_target_ce",
    "hint_mse",
    "mean_by_text",
    "most_likely",
    "principal_angles",
    "soft_target_kl",
    "top_k_kl",
]
