"""Logit distillation into a matrix product state by sweeps over two sites at a time, whose bonds adapt.

Stoudenmire & Schwab 2016, "Supervised Learning with Tensor Networks", section 4, with the loss of logit distillation.
An epoch collects the training set with the teacher's outputs; at its end one sweep (``kdzoo.tensor_networks.two_site``)
goes from the output to both ends of the chain and back. A step sees all samples at once: steps on small batches would
learn each of them by heart, as two merged sites have many weights. The loss is convex in them, so that a step is one of
Newton's, damped.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.loss_terms import total
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.tensor_networks.chain_module import check_open_chain
from kdzoo.tensor_networks.growth import describe_bonds
from kdzoo.tensor_networks.two_site import newton_step, sweep

COLLECTED = ("input", "target", "teacher")


class SweepMPS(ClosedFormDistiller, LogitKD):
    """Distil into a matrix product state by sweeps; an epoch is one.

    Args:
        student: a matrix product state with open boundaries; its ``bond_dim`` is that of the start.
        teacher: returns logits.
        bond_dim: largest bond, >= 1.
        max_error: norm of what each decomposition may cut, relative to that of its tensor, in [0, 1).
        damping: how much a step is held back, > 0: added to the curvature of the mean loss by changes of the function.
        iterations: of the conjugate gradients in each step, >= 1.
        temperature: T of the soft term, finite and greater than 0.
        **options: see :class:`kdzoo.core.closed_form.ClosedFormDistiller`; the terms are ``soft`` and ``hard``.

    Raises:
        ConfigError: an argument is out of its range, or the student is no matrix product state.

    Example:
        >>> from kdzoo.models import MPS
        >>> SweepMPS(MPS(8, 3, 2), nn.Linear(8, 3), bond_dim=4).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    student: Any
    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1},
        paper="Stoudenmire & Schwab 2016, Supervised Learning with Tensor Networks, section 4",
        bibtex="""@inproceedings{stoudenmire2016supervised,
  title     = {Supervised Learning with Tensor Networks},
  author    = {Stoudenmire, E. Miles and Schwab, David J.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016},
}""",
        contract_settings={"distiller.bond_dim": 6, "distiller.iterations": 2},
        exempt=CLOSED_FORM_EXEMPT,
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        bond_dim: int = 16,
        max_error: float = 0.01,
        damping: float = 0.01,
        iterations: int = 5,
        temperature: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, temperature=temperature, **options)
        check_open_chain(student)
        self.bond_dim = validation.integer("bond_dim", bond_dim)
        self.max_error = validation.probability("max_error", max_error)
        self.damping = validation.positive("damping", damping)
        self.iterations = validation.integer("iterations", iterations)

    def observe(self, batch: Batch) -> None:
        """Keep inputs, labels and the teacher's outputs."""
        nothing = torch.full((len(batch["input"]),), IGNORE, device=batch["input"].device)
        new = (batch["input"], batch.get("target", nothing), self.frozen_teacher.output(batch).float())
        for name, value in zip(COLLECTED, new, strict=True):
            self.observed[name] = [*self.observed.get(name, []), value]

    def solve(self) -> bool:
        """Sweep once; go on with the next epoch."""
        seen: Batch = {name: torch.cat(self.observed[name]) for name in COLLECTED}
        self.observed = {}

        def objective(outputs: Tensor) -> Tensor:
            terms = self.logit_terms(seen, outputs, seen["teacher"])
            loss = outputs.new_zeros(())
            for name, (summed, count) in ((name, total(value, len(outputs))) for name, value in terms.items()):
                loss = loss + self.loss_weights[name] * summed / max(count, 1)
            return loss

        def update(features: Tensor, weights: Tensor) -> Tensor:
            return newton_step(features, weights, objective, damping=self.damping, iterations=self.iterations)

        student = self.student
        sites, centre = sweep(
            student.sites(),
            student.centre.detach().double(),
            student.out_site,
            student.features(seen["input"]).double(),
            update,
            bond_dim=self.bond_dim,
            max_error=self.max_error,
        )
        student.load_tensors(sites, centre)
        self.notes["bonds"] = describe_bonds(sites)
        return False
