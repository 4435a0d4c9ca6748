"""Figures from plain numbers and NumPy arrays: each function writes one PNG file and returns its path.

The functions know nothing about models, data or runs. Whoever has something to show computes the numbers and calls one
of them.
"""

from kdzoo.plotting.classification import recall_by_class, reliability_diagram
from kdzoo.plotting.curves import Curves, TrainingCurves, loss_curves, merge_curve, objective_curve
from kdzoo.plotting.densities import density_panels, mass_levels
from kdzoo.plotting.images import image_panels, image_rows
from kdzoo.plotting.pairs import Pairs, pair_matrices, pairs_on_images
from kdzoo.plotting.scatter import class_scatter, cluster_scatter, log_prob_scatter, similarity_scatter
from kdzoo.plotting.scores import score_bars
from kdzoo.plotting.sequences import sequence_heatmaps
from kdzoo.plotting.style import ROLE_COLOURS
from kdzoo.plotting.sweeps import score_over_settings

__all__ = [
    "ROLE_COLOURS",
    "Curves",
    "Pairs",
    "TrainingCurves",
    "class_scatter",
    "cluster_scatter",
    "density_panels",
    "image_panels",
    "image_rows",
    "log_prob_scatter",
    "loss_curves",
    "mass_levels",
    "merge_curve",
    "objective_curve",
    "pair_matrices",
    "pairs_on_images",
    "recall_by_class",
    "reliability_diagram",
    "score_bars",
    "score_over_settings",
    "sequence_heatmaps",
    "similarity_scatter",
]
