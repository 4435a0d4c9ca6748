"""Pure functions on tensors: the losses and algorithms from which distillers are wired."""

from kdzoo.functional.encoders import attention_kl, cosine_distance, mean_by_text
from kdzoo.functional.fgw.barycenter import Barycenter, BarycenterSettings, fgw_barycenter
from kdzoo.functional.fgw.graph import Edges
from kdzoo.functional.hidden_features import attention_map, attention_transfer, hint_mse
from kdzoo.functional.logits import centred_mse, decoupled_kl, hard_target_ce, most_likely, soft_target_kl, top_k_kl
from kdzoo.functional.relations import angle_relation, distance_relation

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
    "soft_target_kl",
    "top_k_kl",
]
