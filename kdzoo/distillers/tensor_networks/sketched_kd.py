"""Logit distillation into a matrix product state that is built from queries to the teacher before the first step.

The student is computed from a few unlabelled training inputs
(:mod:`kdzoo.distillers.tensor_networks.query_distiller`), and then trained by logit distillation. From few samples, a
chain that starts from random noise learns far less.
"""

from collections.abc import Mapping
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
from kdzoo.distillers.tensor_networks.query_distiller import QueryCost, QueryDistiller
from kdzoo.distillers.tensor_networks.sketch import Sketch
from kdzoo.errors import ConfigError


class SketchedKD(QueryDistiller, LogitKD):
    """Build a matrix product state from queries, then match the teacher's softened probabilities and the labels.

    A training that is resumed finds the student in its checkpoint and does not query the teacher again.

    Args:
        student: A matrix product state (:class:`kdzoo.models.MPS`) with open boundaries.
        teacher: Returns logits of the student's shape ``[batch, classes]``.
        temperature: Temperature T of both distributions in the term ``soft``, finite and > 0.
        seed: Seed of the choice of the inputs that are recombined, >= 0.
        **options: ``method``, ``samples``, ``rank``, ``cutoff``, ``domain``, ``ends`` and ``budget``, see
            :class:`kdzoo.distillers.tensor_networks.query_distiller.QueryDistiller`, and those of
            :class:`kdzoo.Distiller`. Here ``samples`` may be 0, for a student that starts as it is; ``budget`` limits
            the evaluations before the first step. The terms are ``soft`` and ``hard``, see
            :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: An argument is out of its range, or the student is not a matrix product state with open boundaries.

    Example:
        >>> from kdzoo.models import MPS
        >>> SketchedKD(MPS(8, 3, 2), nn.Linear(8, 3), rank=4).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    allows_no_samples: ClassVar[bool] = True
    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        # Repeated here because the terms are read from the source text along the first base class, not LogitKD.
        terms={"soft": 0.9, "hard": 0.1},
        paper="Pareja Monturiol et al. 2025, Tensorization of neural networks for improved privacy and "
        "interpretability, section 3; "
        "Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2",
        bibtex=f"{LogitKD.info.bibtex}\n{Sketch.info.bibtex}",
    )

    def __init__(
        self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(student, teacher, temperature=temperature, **options)
        self.seed = integer("seed", seed, least=0)
        self.inputs: Tensor | None = None
        self.report_extras = SketchedKDReport(self)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Choose the inputs that are recombined; return ``data`` unchanged."""
        if self.samples:
            inputs = torch.cat([as_batch(batch)["input"] for batch in data.train_eval_dataloader()])  # type: ignore[attr-defined]
            # A separate generator: the choice depends on the seed alone, on every rank and after a resume.
            chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed))[: self.samples]
            self.inputs = inputs[chosen]
        return data

    def configure_optimizers(self) -> Any:
        """Build the student from queries unless a checkpoint holds it already, then make the optimizer.

        This is the only hook where that can be done: earlier it is not known whether the training is resumed, and later
        the optimizer already has the student's old parameters.
        """
        if self.samples and self._trainer is not None and not self.cost:
            if self.inputs is None:
                raise ConfigError("mps_queries_kd chooses training inputs first: call transfer_set(data) before fit")
            self.build_student(self.inputs.to(next(self.student.parameters())))
            self._note_start()
            # Data parallelism has registered the old parameters.
            wrap_again(self)
        return super().configure_optimizers()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the cost, and with it the note on the start."""
        super().on_load_checkpoint(checkpoint)
        self._note_start()

    def _note_start(self) -> None:
        """Report how the student was built, if it was."""
        if self.cost:
            self.notes["start"] = (
                f"from {self.cost['queries']:.0f} evaluations of the teacher; relative error "
                f"{self.cost['query_error']:.2g} on recombined samples"
            )


class SketchedKDReport(QueryCost):
    """The cost of the queries, and a control that starts from the student's own random weights.

    Args:
        distiller: The method.
    """

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """The same distillation without queries."""
        return {"from_noise": {"samples": 0}} if self.distiller.samples else {}
