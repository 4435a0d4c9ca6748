"""The methods: one file each, wiring and no mathematics."""

from kdzoo.distillers.dkd import DKD
from kdzoo.distillers.feature_kd import FeatureKD
from kdzoo.distillers.logit_kd import LogitKD
from kdzoo.distillers.logit_mse import LogitMSE
from kdzoo.distillers.supervised import Supervised

__all__ = ["DKD", "FeatureKD", "LogitKD", "LogitMSE", "Supervised"]
