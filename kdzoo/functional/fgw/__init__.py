"""The fused Gromov-Wasserstein barycenter with free cluster masses: objective, transport plans and optimization."""

from kdzoo.functional.fgw.barycenter import Barycenter, BarycenterSettings, fgw_barycenter
from kdzoo.functional.fgw.graph import Edges

__all__ = ["Barycenter", "BarycenterSettings", "Edges", "fgw_barycenter"]
