"""Metrics of the torchmetrics kind."""

from kdzoo.metrics.fidelity import Agreement, TeacherKL
from kdzoo.metrics.samples import (
    EarthMoversDistance,
    FrechetDistance,
    KernelDistance,
    MeanDiscrepancy,
    NearestNeighbourAccuracy,
    PrecisionRecallDensityCoverage,
    SampleMetric,
    bootstrap,
)

__all__ = [
    "Agreement",
    "EarthMoversDistance",
    "FrechetDistance",
    "KernelDistance",
    "MeanDiscrepancy",
    "NearestNeighbourAccuracy",
    "PrecisionRecallDensityCoverage",
    "SampleMetric",
    "TeacherKL",
    "bootstrap",
]
