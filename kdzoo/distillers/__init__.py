"""The methods: one file each, wiring and no mathematics."""

from kdzoo.distillers.baum_welch import BaumWelch
from kdzoo.distillers.continual import Continual
from kdzoo.distillers.coreset import Coreset
from kdzoo.distillers.dataset import DatasetDistillation
from kdzoo.distillers.dataset_poison import DatasetPoisoning
from kdzoo.distillers.distilbert import DistilBERT
from kdzoo.distillers.dkd import DKD
from kdzoo.distillers.evidence import Evidence
from kdzoo.distillers.feature_kd import FeatureKD
from kdzoo.distillers.fgw_pfa import FGWPFA
from kdzoo.distillers.growing_mps import GrowingMPS
from kdzoo.distillers.logit_kd import LogitKD
from kdzoo.distillers.logit_mse import LogitMSE
from kdzoo.distillers.mps_distance import MPSDistance
from kdzoo.distillers.online_pfa import OnlinePFA
from kdzoo.distillers.ot_pfa import OTPFA
from kdzoo.distillers.relational_kd import RelationalKD
from kdzoo.distillers.semi_auxiliary import SemiAuxiliary
from kdzoo.distillers.sketch import Sketch
from kdzoo.distillers.sketched_kd import SketchedKD
from kdzoo.distillers.supervised import Supervised
from kdzoo.distillers.sweep_mps import SweepMPS

__all__ = [
    "DKD",
    "FGWPFA",
    "OTPFA",
    "BaumWelch",
    "Continual",
    "Coreset",
    "DatasetDistillation",
    "DatasetPoisoning",
    "DistilBERT",
    "Evidence",
    "FeatureKD",
    "GrowingMPS",
    "LogitKD",
    "LogitMSE",
    "MPSDistance",
    "OnlinePFA",
    "RelationalKD",
    "SemiAuxiliary",
    "Sketch",
    "SketchedKD",
    "Supervised",
    "SweepMPS",
]
