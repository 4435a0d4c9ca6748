"""What a method may add to the report of a run."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

QuickScores = Callable[[nn.Module, Iterable[Any]], dict[str, float]]
"""Returns the metrics of a model that are measured quickly, as :func:`kdzoo.kinds.quick_scores` does."""


class ReportExtras:
    """Additions of a method to the report of a run; the training does not depend on them.

    A method that has something to add derives from this class, overrides what it needs, and assigns an instance to
    ``self.report_extras`` in its ``__init__``.
    """

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """Other settings of this method with which the same student is trained too, by its name in the report."""
        return {}

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return other students of the transfer set ``data``, by their name in the report."""
        return {}

    def measurements(
        self,
        model: nn.Module,  # noqa: ARG002
        batches: Iterable[Any],  # noqa: ARG002
        quick_scores: QuickScores,  # noqa: ARG002
    ) -> dict[str, float]:
        """Return metrics that only this method can measure after the training, by name.

        Args:
            model: The student, or a control that was trained without the teacher.
            batches: The test split.
            quick_scores: Returns those metrics of the model's kind that are measured quickly.
        """
        return {}

    def figures(self, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write figures that only this method can draw into ``folder``, after the training; return their paths."""
        return []
