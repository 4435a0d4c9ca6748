"""Metrics: the fidelity of students, the quality of generated samples, and the quality of text embeddings.

Those that add up over batches and ranks are ``torchmetrics.Metric`` classes; the others are functions.
"""

from kdzoo.metrics.extractors import (
    Extractor,
    PenultimateFeatures,
    PrincipalComponents,
    RandomConvNet,
    ScriptedExtractor,
)
from kdzoo.metrics.fidelity import Agreement, TeacherKL
from kdzoo.metrics.probe import probe_accuracy, similarity_correlation
from kdzoo.metrics.sample_metrics import (
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
    "Extractor",
    "FrechetDistance",
    "KernelDistance",
    "MeanDiscrepancy",
    "NearestNeighbourAccuracy",
    "PenultimateFeatures",
    "PrecisionRecallDensityCoverage",
    "PrincipalComponents",
    "RandomConvNet",
    "SampleMetric",
    "ScriptedExtractor",
    "TeacherKL",
    "bootstrap",
    "probe_accuracy",
    "similarity_correlation",
]
