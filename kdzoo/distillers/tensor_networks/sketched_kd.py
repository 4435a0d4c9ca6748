"""Logit distillation into a matrix product state that starts from queries to the teacher.

Before the first step the student is built by :func:`kdzoo.tensor_networks.from_queries`, from a few training inputs
without their labels; then it is distilled as ever. Of few samples a chain that starts from noise learns far less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core.batch import as_batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.parallel import wrap_again
from kdzoo.core.validation import integer
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.distillers.tensor_networks.sketch import QueryCost, Sketch, build, query_settings
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.chain_module import check_open_chain


class SketchedKD(LogitKD):
    """Build a matrix product state from queries, then match the teacher's softened probabilities and the labels.

    A training that continues from its checkpoint finds the student there and does not ask again.

    Args:
        student: a :class:`kdzoo.models.MPS` with open ends.
        teacher: returns logits of the same shape.
        method: as of :class:`kdzoo.distillers.Sketch`, like those from ``rank`` to ``budget``.
        samples: training inputs around which the teacher is asked, >= 2; 0 starts from the student as it is.
        rank: greatest bond dimension.
        cutoff: what is left out.
        domain: of the numbers that are tried.
        ends: of sketching.
        budget: greatest number of evaluations of the teacher before the first step.
        seed: of the choice of the inputs, >= 0.
        **options: see :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> from kdzoo.models import MPS
        >>> SketchedKD(MPS(8, 3, 2), nn.Linear(8, 3), rank=4).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        paper="Pareja Monturiol et al. 2025, Tensorization of neural networks for improved privacy and interpretability, "
        "section 3; Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2",
        bibtex=f"{LogitKD.info.bibtex}\n{Sketch.info.bibtex}",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        method: str = "sketching",
        samples: int = 100,
        rank: int | None = None,
        cutoff: float = 1e-3,
        domain: Sequence[float] | None = None,
        ends: int | None = None,
        budget: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        check_open_chain(student)
        self.samples = integer("samples", samples, least=2 if samples else 0)
        self.how = query_settings(method, rank=rank, cutoff=cutoff, domain=domain, ends=ends, budget=budget)
        self.seed = integer("seed", seed, least=0)
        self.inputs: Tensor | None = None
        self.cost: dict[str, float] = {}
        self.report_extras = SketchedKDReport(self)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Choose the inputs around which the teacher will be asked; return ``data``."""
        if self.samples:
            inputs = torch.cat([as_batch(batch)["input"] for batch in data.train_eval_dataloader()])  # type: ignore[attr-defined]
            chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed))[: self.samples]
            self.inputs = inputs[chosen]
        return data

    def configure_optimizers(self) -> Any:
        """Build the student from queries, unless a checkpoint has brought it; then make the optimizer of its tensors.

        Before this it is not known whether the training is a continued one, and later the optimizer has the tensors.
        """
        if self.samples and self._trainer is not None and not self.cost:
            if self.inputs is None:
                raise ConfigError("mps_queries_kd chooses training inputs first: call transfer_set(data) before fit")
            assert self.teacher is not None
            inputs = self.inputs.to(next(self.student.parameters()))
            self.cost = build(self.student, self.teacher, inputs, self.how)
            self._remark()
            wrap_again(self)
        return super().configure_optimizers()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the start has cost."""
        checkpoint["cost"] = self.cost

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what the start has cost."""
        self.cost = checkpoint["cost"]
        self._remark()

    def _remark(self) -> None:
        if self.cost:
            self.notes["start"] = (
                f"from {self.cost['queries']:.0f} evaluations of the teacher; relative error "
                f"{self.cost['query_error']:.2g} on recombined samples"
            )


class SketchedKDReport(QueryCost):
    """The cost of the queries, and a control that starts from the student's own random weights."""

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """The same distillation without queries."""
        return {"from_noise": {"samples": 0}} if self.distiller.samples else {}
