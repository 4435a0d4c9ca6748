"""Metrics of the torchmetrics kind."""

from kdzoo.metrics.fidelity import Agreement, TeacherKL

__all__ = ["Agreement", "TeacherKL"]
