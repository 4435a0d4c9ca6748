"""The fused Gromov-Wasserstein barycenter with free masses: its definition, its parts and its descent."""

from kdzoo.functional.fgw.barycenter import Barycenter, fgw_barycenter
from kdzoo.functional.fgw.graph import Edges

__all__ = ["Barycenter", "Edges", "fgw_barycenter"]
