"""Logit distillation into a matrix product state that starts from queries to the teacher.

Before the first step the student is built by :func:`kdzoo.tensor_networks.from_queries`, by recursive sketching from a
few training inputs without their labels; then it is distilled as ever. Of few samples a chain that starts from noise
learns far less.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.batch import as_batch
from kdzoo.checks import integer
from kdzoo.distillers.logit_kd import LogitKD
from kdzoo.tensor_networks.black_box import from_queries
from kdzoo.tensor_networks.growth import check_chain


class SketchedKD(LogitKD):
    """Build a matrix product state from queries, then match the teacher's softened probabilities and the labels.

    Args:
        student: a :class:`kdzoo.models.MPS` with open ends.
        teacher: returns logits of the same shape.
        samples: training inputs around which the teacher is asked, >= 2; 0 starts from the student as it is.
        seed: of the choice of these inputs, >= 0.
        **options: see :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    paper: ClassVar[str] = (
        "Pareja Monturiol et al. 2025, Tensorization of neural networks for improved privacy and interpretability, "
        "section 3; Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2"
    )

    def __init__(
        self, student: nn.Module, teacher: nn.Module, *, samples: int = 100, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(student, teacher, **options)
        check_chain(student)
        self.samples = integer("samples", samples, least=0)
        self.seed = integer("seed", seed, least=0)

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """The same distillation from the student's own start."""
        return {"from_noise": {"samples": 0}} if self.samples else {}

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Build the student from queries, and return ``data``."""
        if self.samples:
            inputs = torch.cat([as_batch(batch)["input"] for batch in data.train_eval_dataloader()])  # type: ignore[attr-defined]
            chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed))[: self.samples]
            found = from_queries(self.student, self.teacher, inputs[chosen])  # type: ignore[arg-type]
            self.remarks["start"] = (
                f"from {found.evaluations} evaluations of the teacher; relative error {found.error:.2g} on "
                "recombined samples"
            )
        return data
